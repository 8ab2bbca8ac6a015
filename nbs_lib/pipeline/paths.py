"""Paths of recipes, notebooks and runs, and the names a run may have."""

import difflib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..config.validation import ParameterError
from ..files import ROOT
from ..project import IN_CHECKOUT, is_project
from ..run.fingerprint import notebook_hash
from ..run.locks import RunError
from ..run.run import Run

# names in outputs/ that no run may have
RESERVED_NAMES = ("cache", "base", "bases", "lab", "index.html")
# the notebook for Colab and Kaggle
COLAB = "colab.ipynb"
RUN_NAME = r"\w[\w .-]*"
# a file system takes 255; temporary names beside a folder are longer than the folder's own
MAX_NAME_BYTES = 200


def outputs() -> Path:
    """Return the folder of all runs."""
    return ROOT / "outputs"


def notebooks() -> Path:
    """Return the folder of the notebooks. Errors: ParameterError outside of a project."""
    # those of a checkout are there, unless somebody removed them
    if not IN_CHECKOUT and not is_project(ROOT):
        raise ParameterError(
            f"project: there is none in {ROOT} or above; `onepass init my-project` writes one: "
            "give the command in it"
        )
    return ROOT / "notebooks"


def copy_notebooks() -> Path:
    """Copy the notebooks into outputs/lab, for JupyterLab to run there, and return that folder.

    A copy stays as it is, with its parameters and outputs, until the code of its original changes.
    Then it is replaced, and the old one is kept as NAME.before-update.ipynb.
    """
    # not in place: git compares sizes before it filters, so each notebook that holds outputs would
    # be modified for `git status`, and `git pull` would refuse to replace it
    originals = notebooks().glob("*.ipynb")
    folder = outputs() / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    for original in originals:
        # it installs the library, which is here already
        if original.name == COLAB:
            continue
        copy = folder / original.name
        if copy.exists():
            if not _is_outdated(copy, original):
                continue
            copy.replace(copy.with_suffix(".before-update.ipynb"))
        shutil.copyfile(original, copy)
    return folder


def _is_outdated(copy: Path, original: Path) -> bool:
    # a copy whose code was changed by its user is newer
    if copy.stat().st_mtime >= original.stat().st_mtime:
        return False
    try:
        return notebook_hash(copy) != notebook_hash(original)
    except RunError:
        # it cannot be opened either
        return True


def recipes() -> Path:
    """Return the folder of the recipes."""
    return notebooks() / "recipes"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean NAME?`, or "" if no name is similar."""
    matches = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def run_folder(name: str) -> Path:
    """Return outputs/NAME.

    Errors: ParameterError for a name that is no plain folder name, so that none leads out of
    outputs/.
    """
    # some file systems drop a space or a dot at the end
    plain = re.fullmatch(RUN_NAME, name) and name.rstrip(" .") == name
    if not plain or name in RESERVED_NAMES or len(name.encode()) > MAX_NAME_BYTES:
        raise ParameterError(
            f"--name: given {name[:MAX_NAME_BYTES]!r}; allowed are {MAX_NAME_BYTES} letters, "
            "digits, '_', '-', '.' and spaces, the first and the last no space or '.', and not "
            f"{', '.join(RESERVED_NAMES)}"
        )
    return outputs() / name


def run_names() -> list[str]:
    """Return the sorted names of all runs: the folders with a record."""
    if not outputs().is_dir():
        return []
    # hidden folders are half-made or half-removed runs
    return sorted(path.parent.name for path in outputs().glob("[!.]*/run.json"))


def find_run(run: str) -> Run:
    """Return a run by its name or its folder. Errors: ParameterError if there is none."""
    name = run.rstrip("/")
    # a folder counts only directly in outputs/, so `rm ../notebooks` finds nothing
    if Path(name).resolve().parent == outputs().resolve():
        name = name.rpartition("/")[2]
    allowed = re.fullmatch(RUN_NAME, name) and name not in RESERVED_NAMES
    if allowed and (outputs() / name / "run.json").is_file():
        return Run(outputs() / name)
    names = run_names()
    hint = did_you_mean(name, names)
    if not hint:
        hint = f"; `onepass list` names all {len(names)}" if names else "; there is none yet"
    raise ParameterError(f"run: given {run!r}; there is no such run in {outputs()}{hint}")
