"""Where recipes, notebooks and runs are, and what a run may be called."""

import difflib
import re
from pathlib import Path

from ..config.validation import ParameterError
from ..files import ROOT
from ..run.run import Run

RESERVED = ("cache", "base", "index.html")
"""Names in outputs/ that are no run's."""
NAME = r"\w[\w .-]*"
LONGEST = 200
"""Bytes of a name: a file system takes 255, and hidden names beside a folder are longer than its own."""


def outputs() -> Path:
    return ROOT / "outputs"


def notebooks() -> Path:
    return ROOT / "notebooks"


def recipes() -> Path:
    return notebooks() / "recipes"


def did_you_mean(given: str, known: list[str]) -> str:
    """`; did you mean NAME?`, or nothing where no name is near."""
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def run_folder(name: str) -> Path:
    """outputs/NAME. Errors: ParameterError for a name that is no plain folder name, so none leads out of outputs/."""
    if (
        not re.fullmatch(NAME, name)
        or name.rstrip(" .") != name
        or name in RESERVED
        or len(name.encode()) > LONGEST
    ):
        raise ParameterError(
            f"--name: given {name[:LONGEST]!r}; allowed are {LONGEST} letters, digits, '_', '-', '.' and spaces, "
            f"the first and the last no space or '.', and not {', '.join(RESERVED)}"
        )
    return outputs() / name


def run_names() -> list[str]:
    """The names of all runs, in order: folders with a record."""
    folder = outputs()
    return (
        sorted(path.parent.name for path in folder.glob("[!.]*/run.json"))
        if folder.is_dir()
        else []
    )


def find_run(name: str) -> Run:
    """A run by its name, or by its folder. Errors: ParameterError where there is none."""
    given = name.rstrip("/")
    plain = (
        given.rpartition("/")[2] if Path(given).resolve().parent == outputs().resolve() else given
    )
    if (
        re.fullmatch(NAME, plain)
        and plain not in RESERVED
        and (outputs() / plain / "run.json").is_file()
    ):
        return Run(outputs() / plain)
    known = run_names()
    hint = did_you_mean(plain, known) or (
        f"; `onepass list` names all {len(known)}" if known else "; there is none yet"
    )
    raise ParameterError(f"run: given {name!r}; there is no such run in {outputs()}{hint}")
