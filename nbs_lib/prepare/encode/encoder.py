"""The encoding itself: images to pictures and latents, captions to embeddings, each into a shard.

A cache's content depends on this code, so this module's source is part of every cache's key.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import torch
from PIL import Image

from ...cache.format import LATENTS
from ...cache.shards import map_shard, write_shard
from ...config import Prepare
from ...files import file_hash, write_atomic
from ...images.convert import to_tensor, to_uint8
from ...models import BaseError, StableDiffusion
from ..examples import ImageRef
from ..filters import ImageInfo
from ..images import (
    NO_MEMORY,
    ImageError,
    Size,
    bucket_sizes,
    crop_position,
    fit,
    nearest_size,
    upright,
)

RowRef = tuple[Path, int]
"""A shard's file, and a row in it."""
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Cropping:
    """The sizes that images are cut to, and the seed of their positions (None: the middle)."""

    sizes: list[Size]
    seed: int | None = None

    @classmethod
    def from_config(cls, config: Prepare, base: StableDiffusion) -> "Cropping":
        seed = config.seed if config.crop == "random" else None
        if not config.buckets:
            return cls([(config.resolution, config.resolution)], seed)
        factor = base.vae_scale_factor
        # Sides are multiples of an eighth of the resolution that the VAE can reduce.
        step = max(1, config.resolution // 8 // factor) * factor
        return cls(bucket_sizes(config.resolution, step), seed)

    def size_for(self, info: ImageInfo) -> Size:
        """Return the size that suits an image best."""
        return nearest_size((info.width, info.height), self.sizes)


@dataclass(frozen=True)
class LatentsTask:
    """A shard of latents to be written.

    rows: for each row the position of its image in the chunk, and whether it is mirrored.
    reused: rows of older shards, by their index among `rows`.
    """

    path: Path
    rows: list[tuple[int, bool]]
    reused: dict[int, RowRef]


def load_picture(
    image: ImageRef, cropping: Cropping, hashed: bool = False
) -> tuple[ImageInfo, Image.Image | None]:
    """Return an image's properties, and its picture at the best size; None if it is unusable.

    hashed: whether to compute the perceptual hash, which takes as long as the picture itself.
    """
    try:
        loaded, digest = image.load()
        loaded = upright(loaded)
        size = loaded.size
        position = 0.5 if cropping.seed is None else crop_position(digest, cropping.seed)
        picture = fit(loaded, *nearest_size(size, cropping.sizes), position)
    except ImageError as fault:
        return ImageInfo(fault=str(fault)), None
    except MemoryError:
        return ImageInfo(fault=NO_MEMORY), None
    except Exception:  # readers of damaged files raise errors of any kind
        return ImageInfo(fault="image is truncated or damaged"), None
    return ImageInfo(digest, *size, perceptual_hash(picture) if hashed else None), picture


def perceptual_hash(picture: Image.Image) -> int:
    """Return 64 bits that change little when a picture is resized, compressed or made darker."""
    bits = imagehash.phash(picture).hash.flatten()
    return int.from_bytes(np.packbits(bits).tobytes())


def store_shard(path: Path, tensors: Tensors):
    """Write a shard, and a file with its SHA-256 beside it."""
    part = path.with_name(f".{path.name}.new")
    write_shard(part, tensors)
    # The hash must be there first: a shard without it counts as unfinished.
    write_atomic(digest_path(path), file_hash(part))
    part.replace(path)


def digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def is_stored(path: Path) -> bool:
    """Return whether an earlier try wrote this shard whole. A damaged one is removed."""
    digest = digest_path(path)
    if path.exists() and digest.exists() and file_hash(path) == digest.read_text():
        return True
    path.unlink(missing_ok=True)
    return False


class Encoder:
    """The base's VAE and text encoders in one process, each loaded when it is first used."""

    def __init__(self, base: StableDiffusion, device: torch.device, batch_size: int):
        self.base = base
        self.device = device
        self.batch_size = batch_size
        self._vae: Any = None
        self._text_encoders: list | None = None

    @property
    def vae(self):
        if self._vae is None:
            # Convolutions are faster on pixels whose channels lie together.
            self._vae = self.base.vae().to(self.device, memory_format=torch.channels_last)
        return self._vae

    @property
    def text_encoders(self) -> list:
        """Each tokenizer with its text encoder."""
        if self._text_encoders is None:
            self._text_encoders = [
                (tokenizer, encoder.to(self.device))
                for tokenizer, encoder in self.base.text_encoders()
            ]
        return self._text_encoders

    @torch.no_grad()
    def latents(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Return latents fp32 [n, c, h, w], scaled as the base's UNet takes them.

        Errors: BaseError if they are not finite.
        """
        parts = []
        # TF32, and algorithms chosen by timing, would give other bits on each run.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            for rows in self._batches(len(pictures)):
                batch = pixels(pictures[rows])
                batch = batch.to(self.device, memory_format=torch.channels_last)
                parts.append(self.base.encode(self.vae, batch).contiguous().cpu())
        latents = torch.cat(parts)
        if not latents.isfinite().all():
            raise BaseError(
                f"base {self.base.name!r}: its VAE makes latents that are not finite numbers; "
                "its weights may be damaged"
            )
        return latents

    def write_latents(self, task: LatentsTask, pictures: dict[int, Image.Image]):
        """Write the shard of a task. pictures: of the chunk, by position."""
        rows: dict[int, torch.Tensor] = {}
        new = [i for i in range(len(task.rows)) if i not in task.reused]
        chosen = [_mirrored(pictures[position], flip) for position, flip in _pick(task.rows, new)]
        if chosen:
            rows |= zip(new, self.latents(chosen), strict=True)
        for i, (path, row) in task.reused.items():
            rows[i] = map_shard(path)[LATENTS][row]
        store_shard(task.path, {LATENTS: torch.stack(_in_order(rows))})

    @torch.no_grad()
    def decode(self, rows: Sequence[RowRef]) -> list[Image.Image]:
        """Return the pictures that the VAE makes of rows of shards."""
        pictures = []
        for path, row in rows:
            latent = map_shard(path)[LATENTS][row : row + 1].to(self.device)
            pictures.append(Image.fromarray(to_uint8(self.base.decode(self.vae, latent))[0]))
        return pictures

    @torch.no_grad()
    def write_texts(self, path: Path, captions: Sequence[str], reused: dict[int, RowRef]):
        """Write a shard of captions' embeddings. reused: rows of older shards, by their index."""
        rows: dict[int, Tensors] = {}
        new = [i for i in range(len(captions)) if i not in reused]
        for batch in self._batches(len(new)):
            text = self.base.encode_prompt(_pick(captions, new[batch]), self.text_encoders)
            text = text.to("cpu")
            for k, i in enumerate(new[batch]):
                rows[i] = {"embeddings": text.context[k]}
                if text.pooled is not None:
                    rows[i]["pooled"] = text.pooled[k]
        for i, (file, row) in reused.items():
            rows[i] = {name: tensor[row] for name, tensor in map_shard(file).items()}
        columns = {name: [row[name] for row in _in_order(rows)] for name in rows[0]}
        store_shard(path, {name: torch.stack(column) for name, column in columns.items()})

    @torch.no_grad()
    def write_unconditional(self, path: Path, negative_prompt: str):
        """Write the embeddings of guidance's unconditional side, without and with this prompt."""
        tensors = {}
        for name, prompt in (("empty", ""), ("negative", negative_prompt)):
            text = self.base.encode_negative_prompt(self.text_encoders, prompt).to("cpu")
            tensors[name] = text.context[0].contiguous()
            if text.pooled is not None:
                tensors[f"{name}_pooled"] = text.pooled[0].contiguous()
        store_shard(path, tensors)

    def _batches(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.batch_size):
            yield slice(start, start + self.batch_size)


def pixels(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Return RGB pictures of one size as fp32 [n, 3, h, w] in [-1, 1]."""
    return to_tensor(np.stack([np.asarray(picture) for picture in pictures]))


def _mirrored(picture: Image.Image, flip: bool) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture


def _pick(items: Sequence, indices: Sequence[int]) -> list:
    return [items[i] for i in indices]


def _in_order(rows: dict[int, Any]) -> list:
    return [rows[i] for i in range(len(rows))]
