"""Extensions that torch compiled for Python environments that are gone.

Trainings of earlier versions had them compiled; they compile nothing any more.
"""

import os
import re
from pathlib import Path

# in a build.ninja, the site-packages of the environment that it compiles for
INCLUDE_FOLDER = re.compile(r"-isystem '?(.+?)/torch/include'?(?=\s|$)", re.MULTILINE)


def stale_extensions() -> list[Path]:
    """Return the folders of extensions whose environments are gone, such as a removed checkout's.

    A folder that does not name its environment stays, and so does one that the user chose.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders = sorted((caches / "torch_extensions").glob("onepass-*"))
    return [folder for folder in folders if _is_stale(folder)]


def _is_stale(folder: Path) -> bool:
    environments = set()
    for build in folder.glob("*/build.ninja"):
        # ninja escapes a space as "$ "
        text = build.read_text("utf-8", "replace").replace("$ ", " ")
        environments |= set(INCLUDE_FOLDER.findall(text))
    return bool(environments) and not any(Path(path).exists() for path in environments)
