"""The training of the embedded bases: tokenizer, VAE, CLIP and UNet from nothing, then an MMDiT.

pictures/    icons, textures and scenes, drawn once
tokenizer    the vocabulary
vae          the VAE
clip         the CLIP
clip_reader  what helps the CLIP to begin
unet         the UNet, in two phases
mmdit        the transformer of the flow base, with its second text encoder
loop/        the training loop of all networks, its optimizers and its state
make         all of it in turn
assemble     the trained networks as one folder
measure      the base's quality
card         its model card
look         figures for the notebook
"""

from .make import find_packages, make_base, scoring_clip
from .measure import measure_base

__all__ = ["find_packages", "make_base", "measure_base", "scoring_clip"]
