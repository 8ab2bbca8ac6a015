"""What a stage rests on besides its parameters: the library's source and the shipped base, as hashes."""

from collections.abc import Iterable
from pathlib import Path

from ..files import PACKAGE, file_hash, value_hash

BASE = PACKAGE / "picturebook" / "base"
TRAINING = PACKAGE / "picturebook" / "training"
SHARED = ("config", "files.py", "diffusion.py", "run/run.py", "cache", "models")
BESIDE = {
    "prepare": ("images",),
    "train": ("images/convert.py", "run/continuation.py"),
    "compare": ("images",),
}
"""Of a room, what it rests on besides that others do not."""


def code_hash(*rooms: str) -> str:
    """Hash of the library's source that a stage rests on: its own rooms, with all that lies in them, and what all share.

    The shipped base is an input of its own, and how it was made changes no run.
    """
    beside = [file for room in rooms for file in BESIDE.get(room, ())]
    files = [path for name in (*SHARED, *rooms, *beside) for path in files_of(PACKAGE / name)]
    return files_hash(
        path
        for path in files
        if not path.is_relative_to(BASE) and not path.is_relative_to(TRAINING)
    )


def shipped_base_hash() -> str:
    """Hash of all that the embedded base's folder holds."""
    return files_hash(files_of(BASE))


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder of the library, in a fixed order, without what is hidden or compiled; a file is itself."""
    if folder.is_file():
        return [folder]
    found = ((path, path.relative_to(folder).parts) for path in folder.rglob("*") if path.is_file())
    return sorted(
        path
        for path, parts in found
        if not any(part.startswith((".", "__pycache__")) for part in parts)
    )


def files_hash(files: Iterable[Path]) -> str:
    """Hash of files of the library, by their place in it and their bytes."""
    return value_hash([[path.relative_to(PACKAGE).as_posix(), file_hash(path)] for path in files])
