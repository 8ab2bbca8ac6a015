"""The memory that a training needs, planned before it starts.

estimate       the plan by parts, and whether it fits
savings        changes of parameters that save memory
batch_size     the largest batch that it allows
dry_run        a training step without numbers, which measures the parts
"""
