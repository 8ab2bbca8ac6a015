"""A data set of the Hugging Face hub, or one that the `datasets` library saved or can read from a folder."""

from collections.abc import Iterator
from pathlib import Path

from ..captions import IMAGE_COLUMNS, TEXT_COLUMNS, column
from ..examples import Example, Skipped
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
        return "" if self.how.streamed else str(self.rows._fingerprint)

    def __iter__(self) -> Iterator[Example | Skipped]:
        from datasets import Image

        rows = self.rows.select_columns([self.image, self.text]).cast_column(self.image, Image(decode=False))
        version = "" if self.how.streamed else str(rows._fingerprint)
        for number, row in enumerate(rows):
            image = row[self.image] or {}
            if image.get("bytes") is None and image.get("path"):
                try:
                    row[self.image] = {"bytes": Path(image["path"]).read_bytes()}
                except OSError:
                    yield Skipped(f"{self.how.split}-{number:06d}", "image file cannot be read")
                    continue
            yield with_bytes(f"{self.how.split}-{number:06d}", row, self.image, self.text, self.name, version)

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
