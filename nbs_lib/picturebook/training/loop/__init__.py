"""The loop that trains every network of the base.

fit         steps within a time, with averaged weights, resumed after an interruption
optimizers  Muon for the matrices, AdamW for the rest
state       all of it in one safetensors file
"""
