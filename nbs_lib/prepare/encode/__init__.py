"""Images and captions to shards of latents, embeddings and predictions, by worker processes.

ingest          one pass over the sources: read, decode, filter, hand on
chunks          the parts in which a source is read
workers         the pool of worker processes, as the main process sees it
worker_process  the side of a worker
memory          what the workers need, planned and measured
encoder         images to latents, captions to embeddings
teacher_cache   the teacher's predictions
shard_writer    the examples and their shards
caption_writer  the distinct captions and their shards
teacher_shards  the shards of teacher predictions
shard_rows      shards and their rows, read and written
shard_files     each shard's file, found or to be written
keys            names that are hashes over all that a result depends on
"""
