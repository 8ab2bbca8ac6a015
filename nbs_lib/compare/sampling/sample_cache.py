"""Pictures that were sampled, kept in the run: each a PNG that says how it was made, so that sampling goes on where it ended.

    samples/KEY.png            its text "onepass" is JSON: prompt, seed, contender, steps, w, λ, scheduler, base's hash, …
    samples/KEY.safetensors    its final latents

KEY is a hash over all that a picture depends on. A batch is sampled again as a whole where one picture of it is not there, or
not whole: a picture may differ by 1/255 in other company.
"""

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import load, save

from ...files import files_in, remove_stale_temporaries, temporary_path, value_hash
from .provenance import provenance
from .sampler import Sampler

OWN = re.compile(r"[0-9a-f]{24}\.(png|safetensors|\d+\.part)")
"""Names of files that this module writes, or wrote; all others in the folder are somebody else's."""
TEXT = "onepass"
"""The key of a picture's text."""


@dataclass(frozen=True)
class CachedSamples:
    """images: uint8 [n, h, w, 3]; latents: fp32 [n, c, h/8, w/8]; files: the PNG of each."""

    images: np.ndarray
    latents: torch.Tensor
    files: list[Path]


class SampleCache:
    """The pictures of a folder. fresh: how many were sampled; say: is told of damaged ones; tell: of a contender and how many
    of its pictures are there now, 0 as it begins."""

    def __init__(self, folder: Path, sampler: Sampler, say: Callable[[str], None] = print):
        self.folder, self.sampler, self.say, self.fresh = folder, sampler, say, 0
        self.tell: Callable[[str, int], None] = lambda name, pictures: None
        self._used: set[Path] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def sample(
        self, name: str, prompts: list[str], seeds: list[int], steps: int, adapter_scale: float = 1.0,
        guidance: float | None = None, scheduler: str = "",
    ) -> CachedSamples:  # fmt: skip
        """As `Sampler.sample`, but for pictures that are there."""
        way, size = (
            self.sampler.ways.of(name, steps, adapter_scale, guidance, scheduler),
            self.sampler.batch_size,
        )
        shared = {"contender": name} | provenance(self.sampler, way)
        told = [
            shared | {"prompt": prompt, "seed": seed}
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        files = [self.folder / f"{value_hash(each)[:24]}.png" for each in told]
        found: list[tuple[np.ndarray, torch.Tensor]] = []
        self.tell(name, 0)
        for start in range(0, len(told), size):
            part = slice(start, start + size)
            batch = [
                self._read(file, each) for file, each in zip(files[part], told[part], strict=True)
            ]
            if None in batch:
                drawn = self.sampler.sample_way(way, prompts[part], seeds[part])
                batch = list(zip(drawn.images, drawn.latents, strict=True))
                for file, each, (image, latent) in zip(files[part], told[part], batch, strict=True):
                    write_picture(file, image, latent, each)
                self.fresh += len(batch)
            found += batch
            self.tell(name, len(batch))
        self._used |= set(files)
        return CachedSamples(
            np.stack([image for image, _ in found]),
            torch.stack([latent for _, latent in found]),
            files,
        )

    def __len__(self) -> int:
        """Pictures that were asked for."""
        return len(self._used)

    def prune(self):
        """Remove the pictures that nobody asked for since this began."""
        keep = {path.stem for path in self._used}
        if self.folder.is_symlink():
            return
        remove_stale_temporaries(self.folder)
        for path in files_in(self.folder):
            if OWN.fullmatch(path.name) and path.name.split(".")[0] not in keep:
                path.unlink(missing_ok=True)

    def _read(self, file: Path, told: dict[str, Any]) -> tuple[np.ndarray, torch.Tensor] | None:
        if not file.exists():
            return None
        found = read_picture(file)
        side = self.sampler.resolution
        if (
            found is None
            or (side and found[0].shape != (side, side, 3))
            or {name: found[2].get(name) for name in told} != told
        ):
            self.say(f"{file.name} is damaged; it is sampled again")
            return None
        return found[:2]


def write_picture(file: Path, image: np.ndarray, latent: torch.Tensor, told: dict[str, Any]):
    """Write a picture uint8 [h, w, 3] that says how it was made, and its latents; the picture appears last."""
    latents = save({"latents": latent.contiguous()})
    hashes = {
        "pixels_sha256": sha256(image.tobytes()).hexdigest(),
        "latents_sha256": sha256(latents).hexdigest(),
    }
    text = PngImagePlugin.PngInfo()
    text.add_itxt(TEXT, json.dumps(told | hashes, ensure_ascii=False, sort_keys=True))
    part = temporary_path(file)
    part.write_bytes(
        latents
    )  # not synced: what a crash of the machine tears is found by its hash, and sampled again
    part.replace(file.with_suffix(".safetensors"))
    Image.fromarray(image).save(part, "PNG", pnginfo=text)
    part.replace(file)


def read_picture(file: Path) -> tuple[np.ndarray, torch.Tensor, dict[str, Any]] | None:
    """The picture, its latents, and what it says of itself; None where any of it is not as it was written."""
    try:
        with (
            warnings.catch_warnings(action="error"),
            Image.open(file, formats=["PNG"]) as opened,
        ):  # a warning: it is too large
            image, told = np.asarray(opened), json.loads(opened.text[TEXT])
        latents = file.with_suffix(".safetensors").read_bytes()
        whole = sha256(image.tobytes()).hexdigest() == told["pixels_sha256"]
        if not whole or sha256(latents).hexdigest() != told["latents_sha256"]:
            return None
        return image, load(latents)["latents"], told
    except Exception:  # whatever Pillow and safetensors make of damaged bytes: there is no picture that can be used
        return None
