"""The page of all parameters."""

from ..config import NOTEBOOKS
from ..config.fields import Parameter, describe
from ..config.tables import by_group, literal
from .markdown import table

HEAD = """# Parameters

Every parameter of every notebook, written by `python -m nbs_lib.reference` from `nbs_lib/config/`.
On the command line, `-p train.rank=8` sets one; in a recipe, `rank: 8` below `train:`; in a
notebook, the line `rank = 8` in the `parameters` cell, which lists the ones that people change and
takes any other. `onepass params train` prints the same.

*Objectives*: the values of `train.objective` with which a parameter has an effect. A parameter
without such a column depends on no objective.
"""


def page() -> str:
    """Return the page, a section for each notebook."""
    parts = [HEAD.rstrip()]
    for stem, cls in NOTEBOOKS.items():
        # the class's docstring is "Parameters of `NOTEBOOK`: SUMMARY", on one line or more
        summary = " ".join(cls.__doc__.partition(": ")[2].split())
        # not capitalize(), which would write DeepSpeed as deepspeed
        parts.append(f"## {stem}\n\n{summary[0].upper()}{summary[1:]}")
        parts += _tables(describe(cls))
    return "\n\n".join(parts) + "\n"


def _tables(parameters: list[Parameter]) -> list[str]:
    """Return a heading and a table for each group of a notebook's parameters."""
    parts = []
    for title, members in by_group(parameters):
        # a column that says "all" in every row would only take room
        with_objectives = any(parameter.objectives for parameter in members)
        head = ["parameter", "default", "allowed", "meaning"]
        if with_objectives:
            head.append("objectives")
        rows = [_cells(parameter, with_objectives) for parameter in members]
        parts.append(f"### {title}\n\n{table(head, rows)}")
    return parts


def _cells(parameter: Parameter, with_objectives: bool) -> list[str]:
    cells = [
        f"`{parameter.name}`",
        f"`{literal(parameter.default)}`",
        parameter.allowed,
        parameter.meaning,
    ]
    if with_objectives:
        cells.append(", ".join(parameter.objectives) or "all")
    return cells
