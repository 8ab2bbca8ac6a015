"""The format of a prepared cache, which `1_prepare` writes and `2_train` and `3_compare` read."""
