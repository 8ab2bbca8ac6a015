"""Names that are hashes: of a cache, of its shards and of their rows, over all that each depends on and nothing else."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from ... import diffusion, models
from ...cache import shards
from ...config import Prepare
from ...files import file_hash, value_hash
from ...images import convert
from ...models import StableDiffusion
from ...run.environment import versions
from .. import enclosure, examples, image_structure, images
from ..examples import Example
from ..filters import ImageInfo
from . import encoder as work
from . import teacher_cache as answers_module

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
"""The packages that what is encoded rests on."""
MODELS = [
    Path(models.__file__).with_name(f"{name}.py")
    for name in (
        "__init__",
        "_imports",
        "components",
        "loading",
        "stable_diffusion",
        "stable_diffusion_xl",
    )
]


def looks_code(sizes: list[tuple[int, int]], crop: int | None = None) -> str:
    """What a Look rests on; the perceptual hash is of the picture as it is cut, to one of these sizes. crop: see `look_at`."""
    hashing = [version(package) for package in ("imagehash", "scipy")]
    own = [module.__file__ for module in (images, image_structure, enclosure, examples, work)]
    return value_hash([_code(*own), hashing, sizes, crop])


def key_spaces(base: StableDiffusion, config: Prepare) -> dict[str, str]:
    """Of latents, texts, unconditional texts and answers: a hash over what makes them out of a picture or a caption."""
    size = {"resolution": config.resolution, "buckets": config.buckets}
    size |= {"crop": config.seed} if config.crop == "random" else {}
    latents = [
        _code(images.__file__, convert.__file__, work.__file__, shards.__file__, *MODELS),
        base.hash_of("vae"),
        size,
        "float32",
    ]
    texts = [
        _code(work.__file__, shards.__file__, *MODELS),
        base.hash_of(*base.text_parts),
        "float32",
    ]
    found = {"latents": value_hash(latents), "texts": value_hash(texts)}
    found["unconditional"] = value_hash(
        [found["texts"], base.hash_of("scheduler"), config.negative_prompt]
    )
    asked = [
        teacher_request(config),
        _code(answers_module.__file__, diffusion.__file__),
        base.hash_of("unet", "scheduler"),
    ]
    return found | {"answers": value_hash([found["latents"], found["unconditional"], *asked])}


def teacher_request(config: Prepare) -> dict[str, Any] | None:
    """What the teacher is asked, as a cache records it; None for nothing."""
    if config.teacher_cache == "none":
        return None
    told = {"states": config.teacher_cache, "draws": config.teacher_samples, "seed": config.seed}
    return told | (
        {"guidance": config.teacher_guidance_scale}
        if config.teacher_cache == "trajectories"
        else {}
    )


def row_key(example: Example, look: ImageInfo, size: tuple[int, int], flipped: bool) -> str:
    """What a row of latents depends on besides its space: 32 hex digits. A prompt's is its own, so that each has its noise."""
    content = look.digest.hex() if example.image is not None else f"{example.id}\n{example.caption}"
    return hash128([content, list(size), flipped])


def hash128(value: Any) -> str:
    """32 hex digits."""
    return value_hash(value)[:32]


def _code(*paths: str | Path) -> str:
    libraries = {name: known for name, known in versions().items() if name in LIBRARIES}
    return value_hash([[file_hash(Path(path)) for path in paths], libraries])
