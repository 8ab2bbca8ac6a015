"""Checkpoints of a training: written, verified, found and restored."""
