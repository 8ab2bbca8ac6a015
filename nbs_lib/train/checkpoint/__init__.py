"""The checkpoints of a training.

checkpoint     the format on disk: read, verified, written, removed
resume         the checkpoint that a training resumes from, found and loaded
state          the state that a checkpoint holds
plain_values   plain values and tensors as a file
"""
