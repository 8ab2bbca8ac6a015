"""Sampling the pictures of a contender through a stock pipeline, with a cache on disk."""
