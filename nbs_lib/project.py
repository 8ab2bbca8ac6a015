"""The project: the folder of the notebooks, the recipes and the runs.

A checkout is a project itself. The project of an installed wheel is a folder that `onepass init`
wrote: the working directory, or the nearest folder above it.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# what a wheel brings beside the code: notebooks/ with the recipes, and constraints.txt
SHIPPED = PACKAGE / "shipped"
# the bases of the picture-book, which come with the library, by the names that parameters take
EMBEDDED_BASES = {
    "embedded": PACKAGE / "picturebook" / "base",
}


def is_project(folder: Path) -> bool:
    """Return True for a folder with notebooks and recipes."""
    return (folder / "notebooks" / "recipes").is_dir()


def find_root() -> Path:
    """Return the project's folder, or the working directory outside of any project."""
    if IN_CHECKOUT:
        return PACKAGE.parent
    try:
        here = Path.cwd()
    except FileNotFoundError:
        # the working directory was removed, and importing the library must not fail
        return PACKAGE.parent
    # a notebook works in its own folder, below the project
    return next(filter(is_project, (here, *here.parents)), here)


def pip_requirement(extra: str = "") -> str:
    """Return what `pip install` is given for this Onepass, with an extra if one is named.

    In quotes, because brackets are patterns in a shell.
    """
    if not extra:
        return "-e ." if IN_CHECKOUT else "onepass"
    return f"-e '.[{extra}]'" if IN_CHECKOUT else f"'onepass[{extra}]'"


IN_CHECKOUT = is_project(PACKAGE.parent)
# relative folders start here
ROOT = find_root()
