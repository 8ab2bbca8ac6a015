"""All that a picture depends on besides its prompt and seed, as plain values."""

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ... import models
from ...files import file_hash
from ...images import convert
from ...models import find_base
from ...models.lora import LORA_FILE
from ...run.fingerprint import files_hash, source_files
from .adapters import change_stamp
from .sampler import Sampler
from .settings import SamplingSettings

CODE = [
    Path(__file__).with_name(f"{name}.py")
    for name in ("adapters", "engines", "sampler", "settings")
]
CODE += [Path(convert.__file__), *source_files(Path(models.__file__).parent)]
LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def provenance(sampler: Sampler, way: SamplingSettings) -> dict[str, Any]:
    """Of pictures that are sampled so."""
    return {
        "steps": way.steps,
        "w": way.w,
        "guided": way.guided,
        "negative": way.negative,
        "scheduler": way.scheduler,
        "adapters": [
            {"sha256": sha256_of(folder / LORA_FILE), "adapter_scale": scale}
            for folder, scale in way.adapters
        ],
        "model": find_base(str(way.model)).hash if way.model else None,
        "engine": way.engine,
        "base": sampler.base.title,
        "base_hash": sampler.base.hash,
        "resolution": sampler.resolution,
        "made_with": {name: version(name) for name in LIBRARIES}
        | {"code": sampling_code_hash(), "device": sampler.device.type},
    }


@cache
def sampling_code_hash() -> str:
    """Hash of the library's code that samples."""
    return files_hash(CODE)


def sha256_of(path: Path) -> str:
    """Hash of a file, read again only where it was written anew."""
    return _hashed(path, change_stamp(path))


@cache
def _hashed(path: Path, stamp: tuple[int, int]) -> str:
    return file_hash(path)
