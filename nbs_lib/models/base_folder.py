"""A base on disk: its components, their hashes, its origin; texts as its denoiser takes them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5TokenizerFast,
)

from ..files import file_hash, value_hash
from ..project import EMBEDDED_BASES
from .components import INDEX, component_files, load_component
from .origin import hub_id, license_of

TEXT_PARTS = ("text_encoder", "tokenizer")  # how the names of components that read texts begin

Tokenizer = CLIPTokenizer | T5TokenizerFast
# The text encoders of a base in their order, each with its tokenizer.
Encoders = list[tuple[Tokenizer, CLIPTextModel | CLIPTextModelWithProjection | T5EncoderModel]]


class TextEmbeddings(NamedTuple):
    """Texts as a denoiser takes them."""

    context: torch.Tensor  # [n, tokens, width]
    pooled: torch.Tensor | None  # [n, p]; None in a family without

    def to(self, device: torch.device | str) -> "TextEmbeddings":
        """Return the embeddings on a device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return TextEmbeddings(self.context.to(device), pooled)


@dataclass(frozen=True)
class BaseFolder:
    """A folder with the components of a base.

    Each call loads a component again, frozen, in fp32 by default.

    name: as the user gave it
    origin: the name, or the hub id and revision that were downloaded
    """

    name: str
    folder: Path
    origin: str = ""

    parts: ClassVar[tuple[str, ...]]
    # those that a base of the family may be without, beside `parts`
    optional_parts: ClassVar[tuple[str, ...]] = ()
    # the class of each component with weights
    classes: ClassVar[dict[str, type]]

    @classmethod
    def parts_in(cls, folder: Path) -> tuple[str, ...]:
        """Return the components of a base in a folder, whether they are there or missing."""
        return cls.parts

    @cached_property
    def components(self) -> tuple[str, ...]:
        """The components of this base."""
        return self.parts_in(self.folder)

    @cached_property
    def hash(self) -> str:
        """A hash of the files that are loaded, without others beside them."""
        return value_hash(self._file_hashes(self._files()))

    @property
    def text_parts(self) -> tuple[str, ...]:
        """The components that read texts."""
        return tuple(part for part in self.components if part.startswith(TEXT_PARTS))

    def hash_of(self, *parts: str) -> str:
        """Return a hash of the files of some components and of the stock pipeline's settings."""
        files = set().union(*(component_files(self.folder, part) for part in parts))
        index = self.folder / INDEX
        # SDXL's index has a setting of the empty prompt
        index_hash = file_hash(index) if index.is_file() else ""
        return value_hash([*self._file_hashes(files), index_hash])

    def _file_hashes(self, files: Iterable[Path]) -> list[list[str]]:
        return [[str(path.relative_to(self.folder)), file_hash(path)] for path in sorted(files)]

    @property
    def vae_scale_factor(self) -> int:
        """Pixels for each latent along a side."""
        # each block but the last halves the picture
        return 2 ** (len(self._settings("vae/config.json")["block_out_channels"]) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self._settings("vae/config.json").get("latent_channels", 4)

    @property
    def title(self) -> str:
        """The base's name for other machines: the hub's repository, or the folder's last part."""
        return hub_id(self.origin) or Path(self.name).name

    @property
    def license(self) -> dict[str, str]:
        """The license fields of its card by the hub's names; {} if unknown."""
        # the embedded ones are ours
        return {"license": "mit"} if self.name in EMBEDDED_BASES else license_of(self.folder)

    def _files(self) -> set[Path]:
        return set().union(*(component_files(self.folder, part) for part in self.components))

    def _settings(self, file: str) -> dict[str, Any]:
        return json.loads((self.folder / file).read_text("utf-8"))

    def _load(self, part: str, dtype: torch.dtype):
        return load_component(self.classes[part], self.name, self.folder, part, dtype)


def token_ids(texts: list[str], tokenizer: Tokenizer, length: int = 0) -> torch.Tensor:
    """Return token ids [n, tokens], padded and truncated.

    length: tokens; 0 for as many as the text encoder reads
    """
    return tokenizer(
        texts,
        padding="max_length",
        max_length=length or tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
