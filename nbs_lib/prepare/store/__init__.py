"""The store of all caches: the index of known images, reusable shards, and their upkeep."""
