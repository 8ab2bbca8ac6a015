"""The LoRA of a base.

layers          adapters on the denoiser: added, switched off, switched from one to another
saving          an adapter's file, as diffusers writes it
metadata        what the file says of its training and its sampling
checks          checks of a file before peft reads it
verification    a check that a saved adapter predicts what the trained one does
compatibility   the layers on which other programs load a LoRA
"""
