"""Keys of a cache's parts: hashes over all that a part depends on, and nothing else."""

from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from ... import diffusion, flow, models
from ...cache import shards
from ...config import Prepare
from ...files import file_hash, value_hash
from ...images import convert
from ...models import StableDiffusion
from ...run.environment import versions
from .. import enclosure, examples, image_structure, images
from ..examples import Example
from ..filters import ImageInfo
from ..hashes import hash128
from . import encoder, shard_rows, teacher_cache

# Packages that encoded values depend on: another version may give other last bits.
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
MODEL_MODULES = (
    "__init__",
    "_imports",
    "base_folder",
    "components",
    "loading",
    "stable_diffusion",
    "stable_diffusion_xl",
    "stable_diffusion_3",
    "noise_schedule",
)
MODELS = [Path(models.__file__).with_name(f"{name}.py") for name in MODEL_MODULES]


def image_info_code(cropping: encoder.Cropping) -> str:
    """Return a hash over all besides the image that an ImageInfo depends on.

    The perceptual hash is of the picture as it is cut.
    """
    hashing = [version(package) for package in ("imagehash", "scipy")]
    code = _code(images, image_structure, enclosure, examples, encoder)
    return value_hash([code, hashing, cropping.sizes, cropping.seed])


def key_spaces(base: StableDiffusion, config: Prepare) -> dict[str, str]:
    """Return a hash over all besides the picture or caption that each kind of shard depends on.

    The kinds are latents, texts, unconditional and answers. Rows of one key space can be reused.
    """
    geometry = {"resolution": config.resolution, "buckets": config.buckets}
    if config.crop == "random":
        geometry["crop"] = config.seed
    latents_code = _code(images, convert, encoder, shard_rows, shards, *MODELS)
    latents = value_hash([latents_code, base.hash_of("vae"), geometry, "float32"])
    # Texts depend on no image code, so a change there leaves them valid.
    texts_code = _code(encoder, shard_rows, shards, *MODELS)
    texts = value_hash([texts_code, base.hash_of(*base.text_parts), "float32"])
    unconditional = value_hash([texts, base.hash_of("scheduler"), config.negative_prompt])
    request = teacher_request(config)
    teacher_code = _code(teacher_cache, diffusion, flow)
    teacher_base = base.hash_of(base.denoiser_part, "scheduler")
    answers = value_hash([latents, unconditional, request, teacher_code, teacher_base])
    return {
        "latents": latents,
        "texts": texts,
        "unconditional": unconditional,
        "answers": answers,
    }


def teacher_request(config: Prepare) -> dict[str, Any] | None:
    """Return the teacher's settings as a cache records them; None without a teacher."""
    if config.teacher_cache == "none":
        return None
    request = {
        "states": config.teacher_cache,
        "draws": config.teacher_samples,
        "seed": config.seed,
    }
    # Predictions on data are stored for both sides, so they serve any guidance scale.
    if config.teacher_cache == "trajectories":
        request["guidance"] = config.teacher_guidance_scale
    return request


def row_key(example: Example, info: ImageInfo, size: images.Size, mirrored: bool) -> str:
    """Return a hash over all besides the key space that a row of latents depends on."""
    # A prompt's key has its id in it, so that equal prompts get different noise.
    content = f"{example.id}\n{example.caption}"
    if example.image is not None:
        content = info.digest.hex()
    return hash128([content, list(size), mirrored])


def _code(*modules: ModuleType | Path) -> str:
    """Return a hash over the source of modules and the versions of LIBRARIES."""
    installed = versions()
    libraries = {name: installed[name] for name in LIBRARIES if name in installed}
    paths = [getattr(module, "__file__", module) for module in modules]
    return value_hash([[file_hash(Path(path)) for path in paths], libraries])
