"""The training of the embedded base from nothing: tokenizer, VAE, CLIP and UNet.

pictures/    icons, textures and scenes, drawn once
tokenizer    the vocabulary
vae          the VAE
clip         the CLIP
clip_reader  what helps the CLIP to begin
unet         the UNet, in two phases
fit          one training loop for the networks
state        its state on disk
make         all of it in turn
assemble     the trained networks as one folder
measure      the base's quality
card         its model card
look         figures for the notebook
"""

from .make import make_base
from .measure import measure_base

__all__ = ["make_base", "measure_base"]
