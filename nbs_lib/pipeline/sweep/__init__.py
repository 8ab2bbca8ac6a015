"""A recipe with several values of some parameters."""
