"""Environments of Python that tests make: with the packages of this one, and others before them."""

import site
import venv
from pathlib import Path


def new_environment(folder: Path) -> Path:
    """Make an environment with the packages of this one, except for onepass; return its Python."""
    venv.create(folder, with_pip=False)
    [packages] = (folder / "lib").glob("python*/site-packages")
    # .pth files are not read there, so that the editable checkout is not on the path
    (packages / "shared.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "bin" / "python"
