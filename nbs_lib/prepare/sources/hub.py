"""A data set of the Hugging Face hub, or one that the `datasets` library saved or can read from a folder."""

from collections.abc import Iterator
from pathlib import Path

from ..captions import IMAGE_COLUMNS, TEXT_COLUMNS, CaptionError, clean, column
from ..examples import Example, InFile, Skipped
from . import Asked, SourceError
from .tables import with_bytes

SAVED = ("dataset_info.json", "dataset_dict.json")


def is_saved(path: Path) -> bool:
    """Whether a folder is what `save_to_disk` writes."""
    return any((path / name).is_file() for name in SAVED)


class HubDataset:
    """name: OWNER/NAME, or a folder. No code of a data set is ever run: `datasets` has none any more."""

    def __init__(self, name: str, how: Asked):
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
        return None if self.how.streamed else len(self.rows)

    def stamp(self) -> str:
        """ "" where it is streamed, or names files instead of holding images."""
        first = None if self.how.streamed else next(iter(self._raw()), None)
        return str(self.rows._fingerprint) if first and (first[self.image] or {}).get("bytes") is not None else ""

    def __iter__(self) -> Iterator[Example | Skipped]:
        version = "" if self.how.streamed else str(self.rows._fingerprint)
        for number, row in enumerate(self._raw()):
            id, image = f"{self.how.split}-{number:06d}", row[self.image] or {}
            if image.get("bytes") is not None or not image.get("path"):
                yield with_bytes(id, row, self.image, self.text, self.name, version)
            else:
                yield self._named(id, row)

    def _raw(self):
        """The rows, their images as bytes or as paths."""
        from datasets import Image

        return self.rows.select_columns([self.image, self.text]).cast_column(self.image, Image(decode=False))

    def _named(self, id: str, row: dict) -> Example | Skipped:
        """The example of a row that names a file, which has to lie in the data set's own folder."""
        own = Path(self.name).resolve()
        try:
            path = (own / row[self.image]["path"]).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return Skipped(id, "names a file that is not there")
        if not Path(self.name).is_dir() or not path.is_relative_to(own):
            return Skipped(id, "names a file outside the data set")
        if not path.is_file():
            return Skipped(id, "not a file")
        if not isinstance(row[self.text], str | None):
            return Skipped(id, "caption is no text", place=InFile(path))
        try:
            return Example(id, clean(row[self.text] or ""), InFile(path))
        except CaptionError as fault:
            return Skipped(id, str(fault), place=InFile(path))

    def _load(self):
        import datasets

        datasets.disable_progress_bars()
        how = self.how
        try:
            if is_saved(Path(self.name)):
                found = datasets.load_from_disk(self.name)
                return found[how.split] if isinstance(found, datasets.DatasetDict) else found
            return datasets.load_dataset(self.name, how.subset or None, split=how.split, streaming=how.streamed)
        except Exception as failure:  # the hub's, the network's, and those of whatever reads the files
            said = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
            raise SourceError(f"source 'hf:{self.name}': {said}; it needs subset, split, or to be reachable") from None
