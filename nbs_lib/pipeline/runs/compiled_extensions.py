"""What torch has compiled for Python environments that are no more; see `train.launch` for where it is put."""

import os
import re
from pathlib import Path

MADE_WITH = re.compile(r"-isystem '?(.+?)/torch/include'?(?=\s|$)", re.MULTILINE)
"""In a build.ninja, the site-packages of the environment that it compiles for."""


def stale_extensions() -> list[Path]:
    """Return the folders of compiled extensions whose environments are gone, a checkout that was removed with its .venv.

    One that does not say what it was compiled for is left alone, and so is a folder of the user's own choice.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [
        folder
        for folder in sorted((caches / "torch_extensions").glob("onepass-*"))
        if _is_left(folder)
    ]


def _is_left(folder: Path) -> bool:
    environments = set()
    for build in folder.glob("*/build.ninja"):
        text = build.read_text("utf-8", "replace").replace(
            "$ ", " "
        )  # ninja's way to write a space
        environments |= set(MADE_WITH.findall(text))
    return bool(environments) and not any(Path(each).exists() for each in environments)
