"""Onepass: guidance distillation of Stable Diffusion into a LoRA, from notebooks.

The map, in the order in which things depend on one another:

config       Prepare, Train, Compare: the parameters of the three notebooks, their defaults and their checks
run          Run: the folder of one execution, its file names and its record
diffusion    the maths: guidance, conversions between predictions
models       a base (embedded, local folder or hub id): found, checked, loaded, hashed
adapter      a LoRA on the UNet: attach, switch, save, load, verify
picturebook  the embedded data set and the tiny Stable Diffusion trained on it
prepare      images and captions -> cache
train        cache -> adapter
compare      adapter -> pictures, numbers, report
pipeline     a recipe -> the three notebooks -> a run
__main__     the `onepass` command
"""
