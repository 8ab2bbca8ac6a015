"""Pictures and pages: image grids, one palette, one policy for HTML."""
