"""Checks before `datasets` opens a data set, because it follows any link and name."""

import json
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..enclosure import Enclosure, EnclosureError
from .readers.folder_listing import walk

INFO, DICT, STATE = "dataset_info.json", "dataset_dict.json", "state.json"
SAVED = (INFO, DICT)
CARD, CARD_YAML = "README.md", ".huggingface.yaml"
# Settings of a card that name files.
NAMING = ("data_files", "data_dir")
ON_THE_HUB = ("hf://", "https://huggingface.co/")
MAX_SIZE = 1 << 24  # bytes of a file that describes a data set


def check_folder(folder: Path):
    """Check that no name and no link in a data set's folder leads out of it.

    Images are checked when they are read, so that a bad one affects itself alone.
    Errors: EnclosureError.
    """
    enclosure = Enclosure(folder)
    for listing in walk(folder):
        # A link to a folder cannot be a regular file, so it is only checked to stay inside.
        images = set(listing.images())
        files = [name for name in listing.files if name not in images]
        for name in listing.links + files:
            path = listing.path / name
            check = enclosure.check_inside if name in listing.links else enclosure.check
            try:
                check(path)
            except EnclosureError as fault:
                relative = path.relative_to(folder).as_posix()
                raise EnclosureError(f"{relative!r}: {fault}") from None
    for path in (folder / CARD, folder / CARD_YAML):
        _check_card(path, enclosure)
    _check_saved(folder, enclosure)


def check_remote(name: str, subset: str):
    """Check that a data set of the hub names no file of this machine.

    Errors: EnclosureError; whatever `datasets` raises.
    """
    import datasets

    builder = datasets.load_dataset_builder(name, subset or None)
    for split_files in (builder.config.data_files or {}).values():
        for file in map(str, split_files):
            # "::" chains file systems, the last of which may be the local one.
            if not file.startswith(ON_THE_HUB) or "::" in file:
                raise EnclosureError(f"it names {file!r}, which is not on the hub")


def _check_saved(folder: Path, enclosure: Enclosure):
    """Check the files that `load_from_disk` opens: of a data set, or of each of its splits."""
    splits = _as_list(_read_json(folder / DICT, enclosure).get("splits"))
    # A split is a folder, whose name is joined to the path before anything in it is opened.
    for split in splits:
        _check_name(split, DICT)
    for split_folder in [folder, *(folder / split for split in splits)]:
        for file in _as_list(_read_json(split_folder / STATE, enclosure).get("_data_files")):
            name = file.get("filename") if isinstance(file, dict) else None
            _check_name(name, STATE)
            try:
                enclosure.check(split_folder / name)
            except EnclosureError as fault:
                raise EnclosureError(f"{name!r}, which {STATE} names: {fault}") from None


def _as_list(value: Any) -> list:
    # The library raises its own error for values of another type.
    return value if isinstance(value, list) else []


def _check_card(path: Path, enclosure: Enclosure):
    """Check the files that a card names, read as `datasets` reads it."""
    if not path.exists() and not path.is_symlink():
        return
    # Imported here, because most folders have no card.
    import yaml
    from huggingface_hub import DatasetCard

    with enclosure.open(path) as file:
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise EnclosureError(f"{path.name} is larger than {MAX_SIZE >> 20} MiB")
    if path.name == CARD_YAML:
        card = yaml.safe_load(content)
    else:
        card = DatasetCard.load(path).data.to_dict()
    configs = card.get("configs") if isinstance(card, dict) else None
    for name in _names_in(configs, False, set()):
        _check_name(name, path.name)


def _names_in(value: Any, naming: bool, visited: set[tuple[int, bool]]) -> Iterator[str]:
    """Yield the strings below settings that name files.

    naming: whether `value` is below such a setting.
    """
    if isinstance(value, str) and naming:
        yield value
    # YAML may refer to one part from many others; visiting each once keeps the time short.
    visit = (id(value), naming)
    if not isinstance(value, dict | list) or visit in visited:
        return
    visited.add(visit)
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _names_in(child, naming or key in NAMING, visited)


def _check_name(name: Any, origin: str):
    """Check that a name is of a file, not hidden, below its folder. Errors: EnclosureError."""
    if not isinstance(name, str) or "\0" in name:
        raise EnclosureError(f"{origin} names {name!r}, which is no file")
    # `urlsplit` raises an error for brackets that do not match.
    try:
        foreign = bool(urlsplit(name).scheme) or "::" in name
    except ValueError:
        foreign = True
    parts = [part for part in name.split("/") if part != "."]
    hidden = any(part.startswith((".", "~")) for part in parts)
    if foreign or hidden or posixpath.isabs(name):
        raise EnclosureError(f"{origin} names {name!r}, which is outside its folder or hidden")


def _read_json(path: Path, enclosure: Enclosure) -> dict[str, Any]:
    """Return the object in a file, {} if there is no file. Errors: EnclosureError."""
    if not path.exists() and not path.is_symlink():
        return {}
    with enclosure.open(path) as file:
        content = file.read(MAX_SIZE + 1)  # one that is cut is no JSON
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise EnclosureError(f"{path.name} is not JSON") from None
    return values if isinstance(values, dict) else {}
