"""The training's book on disk: drawn in chunks, so that an interruption loses one chunk at most."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from ....files import write_atomic
from ...captions import Scene
from ...dataset import GROUP, PictureBook, draw_grouped_book
from ..loop.state import weights_hash
from ..vae import encode

CHUNK = 64  # groups in a file


class StoredBook:
    """Groups of scenes whose pictures lie in files.

    scenes: in the order of the pictures
    """

    def __init__(self, folder: Path, groups: int, seed: int = 0):
        # in the name, so that another seed or another way of drawing makes another book
        sample = draw_grouped_book(1, seed)
        key = sha256(sample.images.tobytes() + repr(sample.scenes).encode()).hexdigest()[:16]
        self.folder = folder / f"book-{key}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.scenes = []
        self._chunks = []
        for first in range(0, groups, CHUNK):
            chunk = self._chunk(first, min(CHUNK, groups - first), seed)
            self.scenes += chunk.scenes
            self._chunks.append(chunk.images)

    def __len__(self) -> int:
        return len(self.scenes)

    def _chunk(self, first: int, groups: int, seed: int) -> PictureBook:
        scenes = self.folder / f"{first}-{groups}.json"
        images = scenes.with_suffix(".npy")
        if not images.exists():
            book = draw_grouped_book(groups, seed, first)
            write_atomic(scenes, _to_text(book.scenes))
            # last, because it says that the chunk is whole
            part = images.with_suffix(".part")
            with part.open("wb") as opened:
                np.save(opened, book.images)
            part.replace(images)
        # mapped: the book is larger than the memory that it should take
        return PictureBook(_from_text(scenes.read_text()), np.load(images, mmap_mode="r"))

    def pictures(self, indices: list[int]) -> np.ndarray:
        """Return pictures by their places in the book, uint8 [n, 128, 128, 3]."""
        size = CHUNK * GROUP
        return np.stack([self._chunks[i // size][i % size] for i in indices])

    def latents(self, vae: AutoencoderKL) -> torch.Tensor:
        """Return all latents in the UNet's scale, fp16 [n, 16, 16, 16]; encoded once for a VAE."""
        folder = self.folder / f"latents-{weights_hash(vae)[:16]}"
        folder.mkdir(exist_ok=True)
        parts = []
        for number, images in enumerate(self._chunks):
            file = folder / f"{number}-{len(images)}.safetensors"
            if not file.exists():
                # a copy, because torch takes no mapped file that cannot be written
                latents = encode(vae, np.array(images)) * vae.config.scaling_factor
                # encoded channels last, which safetensors refuses
                save_file({"latents": latents.half().contiguous()}, file.with_suffix(".part"))
                file.with_suffix(".part").replace(file)
            parts.append(load_file(file)["latents"])
        return torch.cat(parts)


def _to_text(scenes: list[Scene]) -> str:
    return json.dumps([[scene.kind, *scene.values] for scene in scenes])


def _from_text(text: str) -> list[Scene]:
    return [Scene(kind, tuple(values)) for kind, *values in json.loads(text)]
