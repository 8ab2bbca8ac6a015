"""Images and captions to shards of latents, embeddings and teacher predictions, by worker processes."""
