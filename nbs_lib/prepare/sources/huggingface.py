"""A data set of the Hugging Face hub, or one that `datasets` saved or can read from a folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow

from ...models.checks.headers import first_line
from ..captions import IMAGE_COLUMNS, LONGEST, TEXT_COLUMNS, find_column
from ..enclosure import EnclosureError
from ..examples import InFile, Item, Items, Skipped, SourceError
from .base import SourceOptions
from .huggingface_folder import SAVED, check_folder, check_remote
from .readers.parquet import binaries
from .table import ROWS_WITH_IMAGES, example_in_memory, images_and_texts, struct_field, with_text


def is_saved(path: Path) -> bool:
    """Return whether a folder is what `save_to_disk` writes."""
    return any(os.path.isfile(path / name) for name in SAVED)


class HubDataset:
    """A data set by its name, OWNER/NAME, or its folder.

    No code of a data set is ever run: the library has no such feature any more.
    """

    def __init__(self, name: str, options: SourceOptions):
        self.name = name
        self.options = options
        self.rows = self._load()
        columns = list(self.rows.features or ())
        self.image = find_column(columns, options.image_column, ("image", *IMAGE_COLUMNS))
        self.text = find_column(columns, options.caption_column, TEXT_COLUMNS)
        # Nothing is guessed from a column's type: a wrong caption would be trained on.
        if self.image is None or self.text is None:
            content = "images" if self.image is None else "captions"
            raise SourceError(
                f"source {name!r}: no column of {content}; it has {', '.join(columns)}; "
                f"image_column and caption_column say which they are"
            )

    def total(self) -> int | None:
        return None if self.options.streaming else len(self.rows)

    def stamp(self) -> str:
        """Return the fingerprint, "" if rows are streamed or name files instead of images."""
        if self.options.streaming:
            return ""
        # The fingerprint covers the rows, but not the content of files that they name.
        for batch in self._batches(1):
            for data, _ in images_and_texts(batch, self.image, self.text):
                return "" if data is None else str(self.rows._fingerprint)
        return ""

    def __iter__(self) -> Items:
        version = "" if self.options.streaming else str(self.rows._fingerprint)
        number = 0
        try:
            for batch in self._batches(ROWS_WITH_IMAGES):
                paths = binaries(struct_field(batch, self.image, "path"), LONGEST)
                rows = images_and_texts(batch, self.image, self.text)
                for (data, text), path in zip(rows, paths, strict=True):
                    id = f"{self.options.split}-{number:06d}"
                    if data is None and path:
                        yield self._named_example(id, path, text)
                    else:
                        yield example_in_memory(id, data, text, self.name, version)
                    number += 1
        except Exception as failure:  # errors of the files' readers, and of the network
            id = f"{self.options.split}-{number:06d}"
            yield Skipped(id, "data set cannot be read from here on", first_line(failure))

    def _batches(self, rows: int) -> Iterator[pyarrow.Table]:
        """Yield rows, their images as bytes or paths."""
        from datasets import Image

        columns = self.rows.select_columns([self.image, self.text])
        # Without `decode=False` the library would open images by itself, wherever they are.
        columns = columns.cast_column(self.image, Image(decode=False))
        return iter(columns.with_format("arrow").iter(rows))

    def _named_example(self, id: str, name: bytes, text: Any) -> Item:
        """Return the example of a row that names a file, which has to be in the set's folder."""
        folder = Path(self.name)
        # Resolved, because `..` and links in a name lead out of the folder.
        try:
            path = (folder / name.decode()).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return Skipped(id, "names a file that is not there")
        if not folder.is_dir() or not path.is_relative_to(folder.resolve()):
            return Skipped(id, "names a file outside the data set")
        if not path.is_file():
            return Skipped(id, "not a file")
        return with_text(id, text, InFile(path))

    def _load(self):
        # Imported here, as the library takes a second, and only these sources need it.
        import datasets

        datasets.disable_progress_bars()
        options = self.options
        folder = Path(self.name)
        try:
            if folder.is_dir():
                check_folder(folder)
            else:
                check_remote(self.name, options.subset)
            if is_saved(folder):
                saved = datasets.load_from_disk(self.name)
                return saved[options.split] if isinstance(saved, datasets.DatasetDict) else saved
            return datasets.load_dataset(
                self.name,
                options.subset or None,
                split=options.split,
                streaming=options.streaming,
            )
        except EnclosureError as fault:
            raise SourceError(
                f"source {self.name!r}: {fault}; nothing outside the data set is read"
            ) from None
        except Exception as failure:  # errors of the hub, the network, and the files' readers
            raise SourceError(
                f"source 'hf:{self.name}': {first_line(failure)}; "
                "it needs subset, split, or to be reachable"
            ) from None
