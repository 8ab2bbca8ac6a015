"""The store of caches: what it remembers between runs, and its administration.

database     one SQLite file, the index
image_index  images' properties, a table of the index
receipts     results of whole passes over unchanged sources, a table of the index
reuse        shards and rows of older caches
locks        processes that build, take and remove caches
admin        caches listed, verified, pruned
"""
