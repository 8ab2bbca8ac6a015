"""What is checked before the `datasets` library opens a data set: it follows links and names, wherever they lead."""

import json
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..enclosure import Enclosure, EnclosureError
from .folder import ENDINGS
from .readers.folder_listing import walk

INFO, DICT, STATE = "dataset_info.json", "dataset_dict.json", "state.json"
SAVED = (INFO, DICT)
CARD, CARD_YAML = "README.md", ".huggingface.yaml"
NAMING = ("data_files", "data_dir")
"""Settings of a card that name files."""
ON_THE_HUB = ("hf://", "https://huggingface.co/")
MOST = 1 << 24  # bytes of a file that describes a data set


def check_folder(folder: Path):
    """Check that nothing a data set in a folder names, and no link in it, leads out of it. Errors: EnclosureError.

    Images are left to whoever reads them, so that one costs itself alone.
    """
    enclosure = Enclosure(folder)
    for listing in walk(folder):
        for name in listing.links + [
            name for name in listing.files if not name.lower().endswith(ENDINGS)
        ]:
            path = listing.path / name
            try:
                (enclosure.check_inside if name in listing.links else enclosure.check)(path)
            except EnclosureError as fault:
                raise EnclosureError(f"{path.relative_to(folder).as_posix()!r}: {fault}") from None
    for path in (folder / CARD, folder / CARD_YAML):
        _check_card(path, enclosure)
    _check_saved(folder, enclosure)


def check_remote(name: str, subset: str):
    """Check that a data set of the hub names no file of this machine. Errors: EnclosureError; whatever `datasets` raises."""
    import datasets

    builder = datasets.load_dataset_builder(name, subset or None)
    for file in (
        str(file) for files in (builder.config.data_files or {}).values() for file in files
    ):
        if not file.startswith(ON_THE_HUB) or "::" in file:
            raise EnclosureError(f"it names {file!r}, which is not on the hub")


def _check_saved(folder: Path, enclosure: Enclosure):
    """Check the files that `load_from_disk` opens: those of a data set, or of each split of one."""
    splits = _json(folder / DICT, enclosure).get("splits")
    splits = splits if isinstance(splits, list) else []
    for split in splits:
        _check_name(split, DICT)
    for place in [folder, *(folder / split for split in splits)]:
        files = _json(place / STATE, enclosure).get("_data_files", [])
        for file in files if isinstance(files, list) else []:
            name = file.get("filename") if isinstance(file, dict) else None
            _check_name(name, STATE)
            try:
                enclosure.check(place / name)
            except EnclosureError as fault:
                raise EnclosureError(f"{name!r}, which {STATE} names: {fault}") from None


def _check_card(path: Path, enclosure: Enclosure):
    """Check the files that a card names, read as `datasets` reads it."""
    if not path.exists() and not path.is_symlink():
        return
    import yaml
    from huggingface_hub import DatasetCard

    with enclosure.open(path) as file:
        content = file.read(MOST + 1)
    if len(content) > MOST:
        raise EnclosureError(f"{path.name} is larger than {MOST >> 20} MiB")
    card = (
        yaml.safe_load(content) if path.name == CARD_YAML else DatasetCard.load(path).data.to_dict()
    )
    for name in _strings(card.get("configs") if isinstance(card, dict) else None, False, set()):
        _check_name(name, path.name)


def _strings(value: Any, naming: bool, seen: set[int]) -> Iterator[str]:
    """The strings below settings that name files. seen: what was looked into, as YAML may repeat a part many times."""
    if isinstance(value, str) and naming:
        yield value
    if not isinstance(value, dict | list) or (id(value), naming) in seen:
        return
    seen.add((id(value), naming))
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _strings(each, naming or key in NAMING, seen)


def _check_name(name: Any, told_by: str):
    """Check that a name is of a file, not hidden, below its folder. Errors: EnclosureError."""
    if not isinstance(name, str) or "\0" in name:
        raise EnclosureError(f"{told_by} names {name!r}, which is no file")
    try:
        foreign = bool(urlsplit(name).scheme) or "::" in name
    except ValueError:
        foreign = True
    if (
        foreign
        or posixpath.isabs(name)
        or any(part.startswith((".", "~")) and part != "." for part in name.split("/"))
    ):
        raise EnclosureError(f"{told_by} names {name!r}, which is outside its folder or hidden")


def _json(path: Path, enclosure: Enclosure) -> dict[str, Any]:
    """An object in a file; an empty one where there is no file. Errors: EnclosureError."""
    if not path.exists() and not path.is_symlink():
        return {}
    with enclosure.open(path) as file:
        content = file.read(MOST + 1)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise EnclosureError(f"{path.name} is not JSON") from None
    return found if isinstance(found, dict) else {}
