"""Bases and adapters on disk: found, checked, loaded, hashed, saved.

loading              a base by name: `embedded`, a folder in diffusers' layout, one file, a hub id
stable_diffusion     StableDiffusion: SD 1.x and 2.x, and everything that depends on the family
stable_diffusion_xl  StableDiffusionXL: the differences of SDXL
stable_diffusion_3   StableDiffusion3: SD 3 and 3.5, flows with a transformer
base_folder          a base's components, hashes and origin; texts as its denoiser takes them
noise_schedule       the noise levels of a base's timesteps, and what is predicted there
single_file/         a base in one safetensors file, converted to a folder
attention/           equal tokens of a text, computed once
model_folder         models of scores, features and captions, and the embedded CLIP
components           the files of a base's components, and how one is loaded
consistency          checks that a base's components are complete and fit together
checks/              checks of settings and headers, without a weight in memory
origin               a base's repository and license, and a model card's metadata
weights/             weights packed in fewer bits, and weights without numbers
lora/                the LoRA of a base: layers, file, metadata, checks
sampling_recipe      how to sample with an adapter: settings, a sentence, Python code
_imports             the import of the large libraries without garbage collection
_torch_compilers     paths with spaces quoted, and the blocks that a denoiser repeats

No code is ever run from a model's folder (`trust_remote_code` stays off), and weights are read
from safetensors only.
"""

from . import _imports as libraries  # noqa: F401  (before any import of these libraries)
from .base_folder import TextEmbeddings
from .components import BaseError
from .loading import EMBEDDED, MIRRORS, find_base
from .model_folder import embedded_clip
from .noise_schedule import NoiseSchedule
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL

__all__ = [
    "EMBEDDED",
    "MIRRORS",
    "StableDiffusion",
    "BaseError",
    "NoiseSchedule",
    "StableDiffusion3",
    "StableDiffusionXL",
    "TextEmbeddings",
    "embedded_clip",
    "find_base",
]
