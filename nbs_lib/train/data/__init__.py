"""The cache as batches.

batch          the tensors of one pass, and the random choices behind them
dataset        batches, as pure functions of the step
prefetch       the next batch, copied to a GPU while the present one computes
rollout        batches whose rows are steps of the student's own sampling
cache_reader   the cache, read by the indices of its examples
"""
