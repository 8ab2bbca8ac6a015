"""A data set of the Hugging Face hub, or one that the `datasets` library saved or can read from a folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute

from ..captions import IMAGE_COLUMNS, LONGEST, TEXT_COLUMNS, CaptionError, clean_caption, column
from ..enclosure import EnclosureError
from ..examples import Example, InFile, Skipped
from . import SourceError, SourceOptions
from .huggingface_folder import SAVED, check_folder, check_remote
from .readers.parquet import binaries
from .tables import IMAGES, images_and_texts, with_bytes


def is_saved(path: Path) -> bool:
    """Whether a folder is what `save_to_disk` writes."""
    return any(os.path.isfile(path / name) for name in SAVED)


class HubDataset:
    """name: OWNER/NAME, or a folder. No code of a data set is ever run: `datasets` has none any more."""

    def __init__(self, name: str, how: SourceOptions):
        self.name, self.how = name, how
        self.rows = self._load()
        known = list(self.rows.features or ())
        self.image = column(known, how.image_column, ("image", *IMAGE_COLUMNS))
        self.text = column(known, how.caption_column, TEXT_COLUMNS)
        if self.image is None or self.text is None:
            raise SourceError(
                f"source {name!r}: no column of {'images' if self.image is None else 'captions'}; it has {', '.join(known)}; "
                f"image_column and caption_column say which they are"
            )

    def total(self) -> int | None:
        return None if self.how.streaming else len(self.rows)

    def stamp(self) -> str:
        """ "" where it is streamed, or names files instead of holding images."""
        first = None if self.how.streaming else next(self._batches(1), None)
        holds = (
            first is not None
            and next(images_and_texts(first, self.image, self.text), (None,))[0] is not None
        )
        return str(self.rows._fingerprint) if holds else ""

    def __iter__(self) -> Iterator[Example | Skipped]:
        version = "" if self.how.streaming else str(self.rows._fingerprint)
        number = 0
        try:
            for batch in self._batches(IMAGES):
                paths = binaries(_paths_of(batch, self.image), LONGEST)
                for (data, text), path in zip(
                    images_and_texts(batch, self.image, self.text), paths, strict=True
                ):
                    yield self._example(f"{self.how.split}-{number:06d}", data, text, path, version)
                    number += 1
        except Exception as failure:  # of whatever reads the files, and of the network
            yield Skipped(
                f"{self.how.split}-{number:06d}",
                "data set cannot be read from here on",
                _said(failure),
            )

    def _example(
        self, id: str, data: bytes | None, text: Any, path: bytes | None, version: str
    ) -> Example | Skipped:
        return (
            with_bytes(id, data, text, self.name, version)
            if data is not None or not path
            else self._named(id, path, text)
        )

    def _batches(self, rows: int) -> Iterator[pyarrow.Table]:
        """The rows, their images as bytes or as paths."""
        from datasets import Image

        chosen = self.rows.select_columns([self.image, self.text]).cast_column(
            self.image, Image(decode=False)
        )
        return iter(chosen.with_format("arrow").iter(rows))

    def _named(self, id: str, name: bytes, text: Any) -> Example | Skipped:
        """The example of a row that names a file, which has to lie in the data set's own folder."""
        own = Path(self.name)
        try:
            path = (own / name.decode()).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return Skipped(id, "names a file that is not there")
        if not own.is_dir() or not path.is_relative_to(own.resolve()):
            return Skipped(id, "names a file outside the data set")
        if not path.is_file():
            return Skipped(id, "not a file")
        if not isinstance(text, str | bytes):
            return Skipped(id, "caption is no text", place=InFile(path))
        try:
            return Example(id, clean_caption(text), InFile(path))
        except CaptionError as fault:
            return Skipped(id, str(fault), place=InFile(path))

    def _load(self):
        import datasets

        datasets.disable_progress_bars()
        how, own = self.how, Path(self.name)
        try:
            if own.is_dir():
                check_folder(own)
            else:
                check_remote(self.name, how.subset)
            if is_saved(own):
                found = datasets.load_from_disk(self.name)
                return found[how.split] if isinstance(found, datasets.DatasetDict) else found
            return datasets.load_dataset(
                self.name, how.subset or None, split=how.split, streaming=how.streaming
            )
        except EnclosureError as fault:
            raise SourceError(
                f"source {self.name!r}: {fault}; nothing outside the data set is read"
            ) from None
        except (
            Exception
        ) as failure:  # the hub's, the network's, and those of whatever reads the files
            raise SourceError(
                f"source 'hf:{self.name}': {_said(failure)}; it needs subset, split, or to be reachable"
            ) from None


def _said(failure: Exception) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]


def _paths_of(batch: pyarrow.Table, image: str) -> pyarrow.Array | pyarrow.ChunkedArray:
    whole = batch.column(image)
    if not pyarrow.types.is_struct(whole.type) or whole.type.get_field_index("path") < 0:
        return pyarrow.nulls(batch.num_rows)
    return pyarrow.compute.struct_field(whole, "path")
