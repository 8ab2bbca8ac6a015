"""All that a picture depends on besides its prompt and seed, as plain values."""

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import adapter, adapter_file, models
from ..adapter import WEIGHTS
from ..files import file_hash
from ..inputs import files_hash
from ..models import find_base
from .sample import Sampler
from .ways import Way
from .weights import stamp_of

CODE = [Path(__file__).with_name(f"{name}.py") for name in ("engines", "sample", "ways", "weights")]
CODE += [Path(adapter.__file__), Path(adapter_file.__file__), *sorted(Path(models.__file__).parent.glob("*.py"))]
LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def made(sampler: Sampler, way: Way) -> dict[str, Any]:
    """Of pictures that are sampled so."""
    return {
        "steps": way.steps,
        "w": way.w,
        "guided": way.guided,
        "negative": way.negative,
        "scheduler": way.scheduler,
        "adapters": [{"sha256": sha256_of(folder / WEIGHTS), "adapter_scale": scale} for folder, scale in way.adapters],
        "model": find_base(str(way.model)).hash if way.model else None,
        "engine": way.engine,
        "base": sampler.base.title,
        "base_hash": sampler.base.hash,
        "resolution": sampler.resolution,
        "made_with": {name: version(name) for name in LIBRARIES} | {"code": code(), "device": sampler.device.type},
    }


@cache
def code() -> str:
    """Hash of the library's code that samples."""
    return files_hash(CODE)


def sha256_of(path: Path) -> str:
    """Hash of a file, read again only where it was written anew."""
    return _hashed(path, stamp_of(path))


@cache
def _hashed(path: Path, stamp: tuple[int, int]) -> str:
    return file_hash(path)
