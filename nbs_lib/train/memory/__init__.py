"""The memory that a training needs, planned before it starts."""
