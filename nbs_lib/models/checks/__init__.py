"""Checks of a base before it is used. No weight is read: headers and settings tell enough."""
