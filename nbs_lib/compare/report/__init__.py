"""What a comparison shows: figures, plots, a summary in text, and one offline HTML page."""
