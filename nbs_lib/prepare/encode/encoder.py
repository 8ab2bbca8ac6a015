"""What encoding processes do: they look at images, and turn those that are kept into shards.

A process holds the pictures of a few chunks between the two, so that an image is decoded once, and travels nowhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import torch
from PIL import Image

from ...cache.shards import map_shard, write_shard
from ...files import file_hash, write_atomic
from ...images.convert import to_tensor, to_uint8
from ...models import BaseError, StableDiffusion
from ..examples import ImageRef
from ..filters import ImageInfo
from ..images import NO_MEMORY, ImageError, fit, nearest, place_of, upright

LATENTS = "latents"
Size = tuple[int, int]


@dataclass(frozen=True)
class Task:
    """A shard to be written. rows: of each, its place among the chunk's pictures, and whether it is mirrored; taken: rows
    that are there already, by place among `rows`: the file and the row in it."""

    path: Path
    size: Size
    rows: list[tuple[int, bool]]
    taken: dict[int, tuple[Path, int]]


def look_at(
    place: ImageRef, sizes: list[Size], hashed: bool = False, crop: int | None = None
) -> tuple[ImageInfo, Image.Image | None]:
    """What an image looks like, and its picture at the size that suits it best; None where it cannot be used.

    hashed: whether its perceptual hash is wanted, which takes as long as the picture itself. crop: the seed of the place that
    it is cut at; None is the middle.
    """
    try:
        image, digest = place.look()
        image = upright(image)
        size = image.size
        picture = fit(image, *nearest(size, sizes), 0.5 if crop is None else place_of(digest, crop))
    except ImageError as fault:
        return ImageInfo(fault=str(fault)), None
    except MemoryError:
        return ImageInfo(fault=NO_MEMORY), None
    except Exception:  # readers of damaged files raise whatever they stumble over
        return ImageInfo(fault="image is truncated or damaged"), None
    phash = (
        int.from_bytes(np.packbits(imagehash.phash(picture).hash.flatten()).tobytes())
        if hashed
        else None
    )
    return ImageInfo(digest, *size, phash), picture


def keep_picture(path: Path, tensors: dict[str, torch.Tensor]):
    """Write a shard, and beside it, before it has its name, the SHA-256 that it has."""
    fresh = path.with_name(f".{path.name}.new")
    write_shard(fresh, tensors)
    write_atomic(digest_of(path), file_hash(fresh))
    fresh.replace(path)


def digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def is_stored(path: Path) -> bool:
    """Whether a shard of an earlier try is there, as it was written; what is not is removed."""
    if (
        path.exists()
        and digest_of(path).exists()
        and file_hash(path) == digest_of(path).read_text()
    ):
        return True
    path.unlink(missing_ok=True)
    return False


class Encoder:
    """The base's VAE, text encoders or UNet in one process, each loaded when it is first needed."""

    def __init__(self, base: StableDiffusion, device: torch.device, batch_size: int):
        self.base, self.device, self.batch_size = base, device, batch_size
        self._parts = {}

    def part(self, name: str):
        if name not in self._parts:
            if name == "vae":
                self._parts[name] = self.base.vae().to(
                    self.device, memory_format=torch.channels_last
                )
            else:
                self._parts[name] = [
                    (words, encoder.to(self.device)) for words, encoder in self.base.text_encoders()
                ]
        return self._parts[name]

    @torch.no_grad()
    def latents(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """fp32 [n, c, h, w], as the base's UNet takes them. Errors: BaseError where they are no finite numbers."""
        parts = []
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            for start in range(0, len(pictures), self.batch_size):
                batch = pixels(pictures[start : start + self.batch_size])
                batch = batch.to(self.device, memory_format=torch.channels_last)
                parts.append(self.base.encode(self.part("vae"), batch).contiguous().cpu())
        found = torch.cat(parts)
        if not found.isfinite().all():
            raise BaseError(
                f"base {self.base.name!r}: its VAE makes latents that are not finite numbers; its weights may be damaged"
            )
        return found

    def write_latents(self, task: Task, pictures: Sequence[Image.Image]):
        """Write the shard of a task. pictures: of the whole chunk."""
        fresh = [i for i in range(len(task.rows)) if i not in task.taken]
        mirror = Image.Transpose.FLIP_LEFT_RIGHT
        chosen = [
            pictures[place].transpose(mirror) if flip else pictures[place]
            for place, flip in map(task.rows.__getitem__, fresh)
        ]
        rows: list = [None] * len(task.rows)
        if chosen:
            for i, row in zip(fresh, self.latents(chosen), strict=True):
                rows[i] = row
        for i, (path, row) in task.taken.items():
            rows[i] = map_shard(path)[LATENTS][row]
        keep_picture(task.path, {LATENTS: torch.stack(rows)})

    @torch.no_grad()
    def decoded(self, rows: Sequence[tuple[Path, int]]) -> list[Image.Image]:
        """The pictures that the VAE makes of rows of shards."""
        found = []
        for path, row in rows:
            latent = map_shard(path)[LATENTS][row : row + 1].to(self.device)
            found.append(Image.fromarray(to_uint8(self.base.decode(self.part("vae"), latent))[0]))
        return found

    @torch.no_grad()
    def write_texts(self, path: Path, captions: Sequence[str], taken: dict[int, tuple[Path, int]]):
        """Write the shard of captions' embeddings. taken: those that are there already, by place: the file and the row."""
        fresh, rows = [i for i in range(len(captions)) if i not in taken], {}
        for start in range(0, len(fresh), self.batch_size):
            batch = fresh[start : start + self.batch_size]
            text = self.base.encode_prompt([captions[i] for i in batch], self.part("text")).to(
                "cpu"
            )
            parts = {"embeddings": text.context} | (
                {"pooled": text.pooled} if text.pooled is not None else {}
            )
            rows |= {
                i: {name: part[k] for name, part in parts.items()} for k, i in enumerate(batch)
            }
        for i, (file, row) in taken.items():
            rows[i] = {name: part[row] for name, part in map_shard(file).items()}
        keep_picture(
            path,
            {name: torch.stack([rows[i][name] for i in range(len(captions))]) for name in rows[0]},
        )

    @torch.no_grad()
    def write_unconditional(self, path: Path, negative: str):
        """Write what the base guides away from: without a negative prompt, and with this one."""
        tensors = {}
        for name, prompt in (("empty", ""), ("negative", negative)):
            text = self.base.encode_negative_prompt(self.part("text"), prompt).to("cpu")
            tensors[name] = text.context[0].contiguous()
            if text.pooled is not None:
                tensors[f"{name}_pooled"] = text.pooled[0].contiguous()
        keep_picture(path, tensors)


def pixels(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """RGB pictures of one size as fp32 [n, 3, h, w] in [-1, 1]."""
    return to_tensor(np.stack([np.asarray(picture) for picture in pictures]))
