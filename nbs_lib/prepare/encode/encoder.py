"""The encoding itself: images to pictures and latents, captions to embeddings, each into a shard.

A cache's content depends on this code, so this module's source is part of every cache's key.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import imagehash
import numpy as np
import torch
from PIL import Image

from ...cache.format import LATENTS
from ...cache.shards import map_shard
from ...config import Prepare
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
from ..store.reuse import RowRef
from .shard_rows import load_rows, store_rows, store_shard


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
    image: ImageRef,
    cropping: Cropping,
    hashed: bool = False,
) -> tuple[ImageInfo, Image.Image | None]:
    """Return an image's properties, and its picture at the best size; None if it is unusable.

    hashed: whether to compute the perceptual hash, which takes as long as the picture itself.
    """
    try:
        loaded, digest = image.load()
        loaded = upright(loaded)
        size = loaded.size  # the filters decide by the size of the image as it is seen
        position = 0.5 if cropping.seed is None else crop_position(digest, cropping.seed)
        picture = fit(loaded, *nearest_size(size, cropping.sizes), position)
    except ImageError as fault:
        return ImageInfo(fault=str(fault)), None
    except MemoryError:  # of the decoded image; the next one may be smaller
        return ImageInfo(fault=NO_MEMORY), None
    except Exception:  # readers of damaged files raise errors of any kind
        return ImageInfo(fault="image is truncated or damaged"), None
    phash = perceptual_hash(picture) if hashed else None
    return ImageInfo(digest, *size, phash), picture


def perceptual_hash(picture: Image.Image) -> int:
    """Return 64 bits that change little when a picture is resized, compressed or made darker."""
    bits = imagehash.phash(picture).hash.flatten()
    return int.from_bytes(np.packbits(bits).tobytes())


@dataclass
class Encoder:
    """The base's VAE and text encoders in one process, each loaded when it is first used."""

    base: StableDiffusion
    device: torch.device
    batch_size: int

    @cached_property
    def vae(self) -> torch.nn.Module:
        # Convolutions are faster on pixels whose channels lie together.
        return self.base.vae().to(self.device, memory_format=torch.channels_last)

    @cached_property
    def text_encoders(self) -> list:
        """Each tokenizer with its text encoder."""
        pairs = self.base.text_encoders()
        return [(tokenizer, encoder.to(self.device)) for tokenizer, encoder in pairs]

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
            # Small batches bound the memory of a large VAE.
            for rows in self._batches(len(pictures)):
                batch = stack_pixels(pictures[rows])
                batch = batch.to(self.device, memory_format=torch.channels_last)
                encoded = self.base.encode(self.vae, batch)
                parts.append(encoded.contiguous().cpu())
        latents = torch.cat(parts)
        # A training on such latents would end in NaN, hours later and without a cause.
        if not latents.isfinite().all():
            raise BaseError(
                f"base {self.base.name!r}: its VAE makes latents that are not finite numbers; "
                "its weights may be damaged"
            )
        return latents

    def write_latents(self, task: LatentsTask, pictures: dict[int, Image.Image]):
        """Write the shard of a task. pictures: of the chunk, by position."""
        # Rows of older shards are copied: the VAE takes nearly all of the time.
        rows = load_rows(task.reused)
        new = [i for i in range(len(task.rows)) if i not in rows]
        chosen = []
        for i in new:
            position, mirrored = task.rows[i]
            picture = pictures[position]
            chosen.append(_mirror(picture) if mirrored else picture)
        if new:
            for i, latent in zip(new, self.latents(chosen), strict=True):
                rows[i] = {LATENTS: latent}
        store_rows(task.path, rows)

    @torch.no_grad()
    def decode(self, rows: Sequence[RowRef]) -> list[Image.Image]:
        """Return the pictures that the VAE makes of rows of shards."""
        pictures = []
        for path, row in rows:
            # One by one, as the rows may have different sizes.
            latents = map_shard(path)[LATENTS]
            latent = latents[row : row + 1].to(self.device)
            [picture] = to_uint8(self.base.decode(self.vae, latent))
            pictures.append(Image.fromarray(picture))
        return pictures

    @torch.no_grad()
    def write_texts(self, path: Path, captions: Sequence[str], reused: dict[int, RowRef]):
        """Write a shard of captions' embeddings. reused: rows of older shards, by their index."""
        rows = load_rows(reused)
        new = [i for i in range(len(captions)) if i not in rows]
        for batch in self._batches(len(new)):
            prompts = [captions[i] for i in new[batch]]
            text = self.base.encode_prompt(prompts, self.text_encoders).to("cpu")
            for k, i in enumerate(new[batch]):
                rows[i] = {"embeddings": text.context[k]}
                # Only the families with two text encoders have pooled embeddings.
                if text.pooled is not None:
                    rows[i]["pooled"] = text.pooled[k]
        store_rows(path, rows)

    @torch.no_grad()
    def write_unconditional(self, path: Path, negative_prompt: str):
        """Write the embeddings of guidance's unconditional side, without and with this prompt."""
        tensors = {}
        for name, prompt in (("empty", ""), ("negative", negative_prompt)):
            text = self.base.encode_negative_prompt(self.text_encoders, prompt).to("cpu")
            # safetensors takes contiguous tensors alone.
            tensors[name] = text.context[0].contiguous()
            if text.pooled is not None:
                tensors[f"{name}_pooled"] = text.pooled[0].contiguous()
        store_shard(path, tensors)

    def _batches(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.batch_size):
            yield slice(start, start + self.batch_size)


def stack_pixels(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Return RGB pictures of one size as fp32 [n, 3, h, w] in [-1, 1]."""
    return to_tensor(np.stack([np.asarray(picture) for picture in pictures]))


def _mirror(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
