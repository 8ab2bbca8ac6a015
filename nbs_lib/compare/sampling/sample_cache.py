"""The sample cache: pictures in a folder of the run, so that an interrupted comparison resumes.

    samples/KEY.png            its text "onepass" is JSON: prompt, seed, contender, settings, …
    samples/KEY.safetensors    its final latents

KEY is a hash over everything that a picture depends on.
"""

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import load, save

from ... import diffusion, flow, models
from ...files import file_hash, files_in, remove_stale_temporaries, temporary_path, value_hash
from ...images import convert
from ...models import find_base
from ...models.lora.metadata import LORA_FILE
from ...run.fingerprint import files_hash, source_files
from .adapters import change_stamp
from .sampler import Sampler
from .settings import SamplingSettings

# Names of the files that this module writes or wrote; others in the folder are not ours.
FILE_NAMES = re.compile(r"[0-9a-f]{24}\.(png|safetensors|\d+\.part)")
TEXT_KEY = "onepass"  # key of the text in a PNG
CODE = [
    Path(__file__).with_name(f"{name}.py")
    for name in (
        "adapters",
        "engines",
        "pipelines",
        "precision",
        "preview",
        "sampler",
        "settings",
        "sizes",
    )
]
CODE += [Path(module.__file__) for module in (convert, diffusion, flow)]
CODE += source_files(Path(models.__file__).parent)
"""Files of the library that decide what is sampled."""
LIBRARIES = ("torch", "diffusers", "transformers", "peft")

Picture = tuple[np.ndarray, torch.Tensor]  # uint8 [h, w, 3], and its latents [c, h/8, w/8]


@dataclass(frozen=True)
class CachedSamples:
    """Pictures of the cache."""

    images: np.ndarray  # uint8 [n, h, w, 3]
    latents: torch.Tensor  # fp32 [n, c, h/8, w/8]
    files: list[Path]  # the PNG of each


class SampleCache:
    """The pictures in a folder; its length is the number of pictures requested so far.

    n_sampled: pictures that were sampled, not read
    on_batch: called with a contender's name and the number of pictures that are now available, 0
        at its beginning
    """

    def __init__(
        self,
        folder: Path,
        sampler: Sampler,
        warn: Callable[[str], None] = print,
    ):
        """Create the folder. warn: called with a line about each damaged picture."""
        self.folder = folder
        self.sampler = sampler
        self.warn = warn
        self.n_sampled = 0
        self.on_batch: Callable[[str, int], None] = lambda name, pictures: None
        self._requested = set()
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._requested)

    def get_or_sample(
        self,
        settings: SamplingSettings,
        prompts: list[str],
        seeds: list[int],
    ) -> CachedSamples:
        """Return the pictures of `Sampler.sample`, read from the folder where it holds them."""
        shared = {"contender": settings.contender} | provenance(self.sampler, settings)
        pairs = zip(prompts, seeds, strict=True)
        records = [shared | {"prompt": prompt, "seed": seed} for prompt, seed in pairs]
        # 24 digits, 96 bits: no two pictures share a name by chance
        files = [self.folder / f"{value_hash(record)[:24]}.png" for record in records]
        samples = []
        self.on_batch(settings.contender, 0)
        for start in range(0, len(records), self.sampler.batch_size):
            batch = slice(start, start + self.sampler.batch_size)
            samples += self._get_batch(settings, files[batch], records[batch])
            self.on_batch(settings.contender, len(files[batch]))
        self._requested |= set(files)
        images, latents = zip(*samples, strict=True)
        return CachedSamples(np.stack(images), torch.stack(latents), files)

    def _get_batch(self, settings, files, records):
        pictures = list(map(self._read, files, records))
        if None not in pictures:
            return pictures
        # all of the batch again: a picture may differ by 1/255 in another batch
        prompts = [record["prompt"] for record in records]
        seeds = [record["seed"] for record in records]
        samples = self.sampler.sample(settings, prompts, seeds)
        pictures = list(zip(samples.images, samples.latents, strict=True))
        for file, record, picture in zip(files, records, pictures, strict=True):
            write_picture(file, *picture, record)
        self.n_sampled += len(pictures)
        return pictures

    def prune(self):
        """Remove the pictures that were not requested since this cache was opened."""
        # a link may lead to another run's pictures
        if self.folder.is_symlink():
            return
        remove_stale_temporaries(self.folder)
        requested = {path.stem for path in self._requested}
        for path in files_in(self.folder):
            if FILE_NAMES.fullmatch(path.name) and path.name.split(".")[0] not in requested:
                path.unlink(missing_ok=True)

    def _read(self, file, record):
        """Return a picture and its latents; None if missing, damaged or of another record."""
        if not file.exists():
            return None
        contents = read_picture(file)
        if contents:
            image, latents, written = contents
            side = self.sampler.resolution
            has_shape = not side or image.shape == (side, side, 3)
            if has_shape and written.items() >= record.items():
                return image, latents
        self.warn(f"{file.name} is damaged; it is sampled again")
        return None


def write_picture(
    file: Path,
    image: np.ndarray,
    latents: torch.Tensor,
    record: dict,
):
    """Write a picture uint8 [h, w, 3] with its record, and its latents; the picture comes last."""
    latent_bytes = save({"latents": latents.contiguous()})
    hashes = {
        "pixels_sha256": sha256(image.tobytes()).hexdigest(),
        "latents_sha256": sha256(latent_bytes).hexdigest(),
    }
    text = PngImagePlugin.PngInfo()
    text.add_itxt(TEXT_KEY, json.dumps(record | hashes, ensure_ascii=False, sort_keys=True))
    part = temporary_path(file)
    # no fsync: the hashes find what a crash of the machine tears, and it is sampled again
    part.write_bytes(latent_bytes)
    part.replace(file.with_suffix(".safetensors"))
    Image.fromarray(image).save(part, "PNG", pnginfo=text)
    part.replace(file)


def read_picture(file: Path) -> tuple[np.ndarray, torch.Tensor, dict] | None:
    """Return a picture, its latents and its record; None unless all are as they were written."""
    try:
        # Pillow only warns of pictures that are too large
        with warnings.catch_warnings(action="error"), Image.open(file, formats=["PNG"]) as opened:
            image = np.asarray(opened)
            record = json.loads(opened.text[TEXT_KEY])
        latent_bytes = file.with_suffix(".safetensors").read_bytes()
        same_pixels = sha256(image.tobytes()).hexdigest() == record["pixels_sha256"]
        same_latents = sha256(latent_bytes).hexdigest() == record["latents_sha256"]
        if not same_pixels or not same_latents:
            return None
        return image, load(latent_bytes)["latents"], record
    except Exception:  # Pillow and safetensors raise errors of many types for damaged bytes
        return None


def provenance(sampler: Sampler, settings: SamplingSettings) -> dict:
    """Return everything that a picture depends on besides prompt and seed, as JSON values."""
    adapters = [
        {"sha256": weights_hash(folder / LORA_FILE), "adapter_scale": scale}
        for folder, scale in settings.adapters
    ]
    libraries = {name: version(name) for name in LIBRARIES}
    return {
        "steps": settings.steps,
        "w": settings.w,
        "guided": settings.guided,
        "negative": settings.negative,
        "scheduler": settings.scheduler,
        "timestep_spacing": settings.timestep_spacing,
        "adapters": adapters,
        "model": find_base(str(settings.model)).hash if settings.model else None,
        "engine": settings.engine,
        "mixed_precision": sampler.pipelines.mixed_precision,
        "base": sampler.base.title,
        "base_hash": sampler.base.hash,
        "resolution": sampler.resolution,
        "size": list(settings.size) if settings.size else None,
        "made_with": libraries | {"code": sampling_code_hash(), "device": sampler.device.type},
    }


@cache
def sampling_code_hash() -> str:
    """Return the hash of the library's code that samples."""
    return files_hash(CODE)


def weights_hash(path: Path) -> str:
    """Return the hash of a file, read again only if the file was written again."""
    # reading gigabytes of weights takes seconds
    return _hash_at(path, change_stamp(path))


@cache
def _hash_at(path, stamp):
    return file_hash(path)
