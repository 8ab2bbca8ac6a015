"""One execution and its folder in outputs/: its record, its locks, and what its results depend on."""
