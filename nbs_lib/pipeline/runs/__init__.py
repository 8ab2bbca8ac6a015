"""The runs in outputs/: listed, compared, indexed as a page, and cleaned up."""
