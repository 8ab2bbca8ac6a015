"""The cache, which `1_prepare` writes and `2_train` and `3_compare` read.

format  its files, tables and metadata, and how they are read and checked
shards  tensors spread over many files, mapped into memory
"""
