"""Weights that are no plain numbers: packed in fewer bits, or without numbers at all.

quantization   frozen weights in eight or four bits, which each layer restores while it works
fake_tensors   models without numbers, and the memory that they would take
"""
