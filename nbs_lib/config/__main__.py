"""The command `python -m nbs_lib.config`: docs/parameters.md and the notebooks' `parameters` cells.

Both are written from the dataclasses.
"""

import ast
import json
from pathlib import Path

from ..files import ROOT
from . import NOTEBOOKS
from .fields import describe
from .tables import markdown_tables, notebook_line

PAGE = ROOT / "docs" / "parameters.md"
HEAD = """# Parameters

Every parameter of every notebook, written by `python -m nbs_lib.config` from `nbs_lib/config/`. \
On the command line,
`-p train.rank=8` sets one; in a recipe, `rank: 8` below `train:`; in a notebook, \
the line `rank = 8` in the `parameters` cell,
which lists the ones that people change and takes any other. \
`onepass params train` prints the same tables.
"""


def page() -> str:
    """Return the reference page."""
    parts = [HEAD.rstrip()]
    for stem, cls in NOTEBOOKS.items():
        # the class's docstring is "Parameters of `NOTEBOOK`: SUMMARY", on one line or more
        summary = " ".join(cls.__doc__.partition(": ")[2].split())
        # not capitalize(), which would write DeepSpeed as deepspeed
        parts.append(f"## {stem}\n\n{summary[0].upper()}{summary[1:]}")
        parts.append(markdown_tables(describe(cls)))
    return "\n\n".join(parts) + "\n"


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
    PAGE.write_text(page(), "utf-8")
    for stem, cls in NOTEBOOKS.items():
        write_cell(ROOT / "notebooks" / f"{stem}.ipynb", cls)


if __name__ == "__main__":
    main()
