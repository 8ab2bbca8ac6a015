"""Bases: found by name, checked for their parts, loaded, hashed.

find   a base by its name: `embedded`, a folder in diffusers' layout, or a hub id
sd     Base: SD 1.x and 2.x, and all that depends on the family
sdxl   BaseXL: what is otherwise in SDXL
parts  the files of a base's parts, and how one is loaded
check  a base held against itself before it is used; with shapes, settings and headers, which read no weight

Nothing is ever run from a model's folder (`trust_remote_code` stays off), and weights are read from safetensors only.
"""

from . import _imports as libraries  # noqa: F401  (before what imports them)
from .components import BaseError
from .loading import EMBEDDED, MIRRORS, embedded_clip, find_base, load_clip_folder
from .stable_diffusion import StableDiffusion, TextEmbeddings
from .stable_diffusion_xl import StableDiffusionXL

__all__ = [
    "EMBEDDED",
    "MIRRORS",
    "StableDiffusion",
    "BaseError",
    "StableDiffusionXL",
    "TextEmbeddings",
    "embedded_clip",
    "find_base",
    "load_clip_folder",
]
