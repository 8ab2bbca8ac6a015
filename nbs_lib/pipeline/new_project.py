"""A new project for an installed wheel: its notebooks, its recipes, and a folder for the runs."""

from dataclasses import dataclass
from pathlib import Path

from ..config.validation import ParameterError
from ..files import write_atomic
from ..project import IN_CHECKOUT, ROOT, SHIPPED


@dataclass(frozen=True)
class Project:
    """A project's folder.

    written: files that were not there.
    differing: files that stay as they are, because they differ from those of this version.
    """

    folder: Path
    written: list[str]
    differing: list[str]


def write_project(folder: Path) -> Project:
    """Write notebooks, recipes and outputs/ into a folder, new or not; what is in it stays.

    Errors: ParameterError in a checkout, and for a file.
    """
    # its commands would go on working in the checkout
    if IN_CHECKOUT:
        raise ParameterError(
            f"init: this Onepass is the checkout {ROOT}, which is a project itself: "
            "give the other commands there; `make wheel` builds what can be installed elsewhere"
        )
    if folder.exists() and not folder.is_dir():
        raise ParameterError(
            f"init: given {str(folder)!r}, a file; allowed is a folder, new or not"
        )
    written = []
    differing = []
    for source in sorted(path for path in (SHIPPED / "notebooks").rglob("*") if path.is_file()):
        name = source.relative_to(SHIPPED)
        target = folder / name
        content = source.read_bytes()
        # atomic, or an interrupted command would leave half a notebook, kept as its user's
        if not target.exists():
            write_atomic(target, content)
            written.append(name.as_posix())
        # a user's own changes, or those of another version
        elif target.read_bytes() != content:
            differing.append(name.as_posix())
    (folder / "outputs").mkdir(exist_ok=True)
    return Project(folder, written, differing)
