"""Hashes of everything a stage's result depends on besides its parameters' values."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..files import file_hash, value_hash
from ..project import EMBEDDED_BASES, IN_CHECKOUT, PACKAGE, ROOT
from .environment import versions
from .locks import RunError

NOTEBOOKS = ROOT / "notebooks"
TRAINING = PACKAGE / "picturebook" / "training"
# The source that every stage depends on.
SHARED = (
    "config",
    "files.py",
    "diffusion.py",
    "flow.py",
    "run/run.py",
    "run/stage_recording.py",
    "cache",
    "models",
)
# The source outside a stage's own folder that only this stage depends on.
BESIDE = {
    "prepare": ("images",),
    "train": ("images/convert.py", "launch", "run/continuation.py"),
    "compare": ("images",),
}
# The parameters that name a file whose content a stage's result depends on.
FILE_PARAMETERS = ("prompts_file",)


def environment_hashes(stage: str, notebook: str, base: str) -> dict[str, str]:
    """Return the hashes of a stage's code, notebook, versions and shipped base.

    notebook: its file name
    base: its name
    """
    hashes = {
        "code": code_hash(stage, "picturebook"),
        "notebook": notebook_hash(NOTEBOOKS / notebook),
        "versions": value_hash(versions()),
    }
    # training sees the base only through the outputs of prepare
    if base in EMBEDDED_BASES and stage != "train":
        hashes["base"] = files_hash(source_files(EMBEDDED_BASES[base]))
    return hashes


def parameter_file_hashes(parameters: dict[str, Any]) -> dict[str, str]:
    """Return the hash of each file that a stage's parameters name, "" for one that is missing."""
    hashes = {}
    for name in FILE_PARAMETERS:
        if parameters.get(name):
            path = ROOT / Path(parameters[name]).expanduser()
            # the stage itself refuses a missing file; reading a pipe would wait without end
            hashes[name] = file_hash(path) if path.is_file() else ""
    return hashes


def code_hash(*folders: str) -> str:
    """Return the hash of the library's source in these folders and in everything they share.

    folders: names in nbs_lib
    """
    beside = [name for folder in folders for name in BESIDE.get(folder, ())]
    names = (*SHARED, *folders, *beside)
    files = [path for name in names for path in source_files(PACKAGE / name)]
    # an embedded base has a hash of its own, and how it was trained changes no run
    others = (*EMBEDDED_BASES.values(), TRAINING)
    return files_hash(path for path in files if not any(map(path.is_relative_to, others)))


def notebook_hash(path: Path) -> str:
    """Return the hash of a notebook's code, without its parameters, which are hashed by value.

    Errors: RunError if the notebook is missing or damaged
    """
    try:
        return value_hash(list(_code_cells(path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
        repair = "git checkout notebooks" if IN_CHECKOUT else f"onepass init {ROOT}"
        raise RunError(
            f"{path} is missing or no notebook; put it back with `{repair}`"
        ) from failure


def _code_cells(path: Path) -> Iterator[str]:
    for cell in json.loads(path.read_bytes())["cells"]:
        is_code = cell["cell_type"] == "code"
        if is_code and "parameters" not in cell["metadata"].get("tags", []):
            yield "".join(cell["source"])


def source_files(folder: Path) -> list[Path]:
    """Return the files below a folder in a fixed order, without hidden and compiled ones.

    folder: a single file is returned as it is
    """
    if folder.is_file():
        return [folder]
    # templates, scripts and styles too, because they change what a stage writes
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in files if not _is_ignored(path.relative_to(folder)))


def _is_ignored(path: Path) -> bool:
    # an editor's and an interpreter's files come and go while nothing changes
    return any(part.startswith((".", "__pycache__")) for part in path.parts)


def files_hash(files: Iterable[Path]) -> str:
    """Return the hash of the library's files by their paths and bytes."""
    # with the path, because a file that moves may be imported by another one
    return value_hash([[path.relative_to(PACKAGE).as_posix(), file_hash(path)] for path in files])
