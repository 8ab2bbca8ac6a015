"""A separate project for measurements, so that none of them appears among the user's runs."""

import os
import shutil
from pathlib import Path
from typing import Any

from nbs_lib.files import ROOT


def copy_project(folder: Path) -> Path:
    """Copy the library, its base and its notebooks into a new folder without runs; return it."""
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("nbs_lib", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "outputs").mkdir()
    return folder


def start_options(project: Path) -> dict[str, Any]:
    """Return `subprocess` options that start a command in the project."""
    return {"cwd": project, "env": os.environ | {"PYTHONPATH": str(project)}}
