"""The command `python -m nbs_lib.config`, which writes the notebooks' `parameters` cells."""

import ast
import json
from pathlib import Path

from ..files import ROOT
from . import NOTEBOOKS
from .fields import describe
from .tables import notebook_line


def cell(source: str, cls: type) -> str:
    """Return a `parameters` cell that lists the same parameters as this one.

    Errors: KeyError for an unknown name.
    """
    by_name = {parameter.name: parameter for parameter in describe(cls)}
    # a cell chooses its parameters by hand; only their values and comments are written here
    names = [node.targets[0].id for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return "\n".join(notebook_line(by_name[name]) for name in names)


def write_cell(path: Path, cls: type):
    """Write the `parameters` cell of a notebook again."""
    notebook = json.loads(path.read_text("utf-8"))
    for notebook_cell in notebook["cells"]:
        if "parameters" in notebook_cell["metadata"].get("tags", []):
            lines = cell("".join(notebook_cell["source"]), cls)
            notebook_cell["source"] = lines.splitlines(keepends=True)
    # indent and line end as Jupyter writes them, so that saving a notebook there changes nothing
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main():
    for stem, cls in NOTEBOOKS.items():
        write_cell(ROOT / "notebooks" / f"{stem}.ipynb", cls)


if __name__ == "__main__":
    main()
