"""notebooks/colab.ipynb: the three notebooks as one, for Colab and Kaggle.

Their text and code are taken from the three. What differs there:
- The kernel prepares, trains and compares, so that the training cannot be forked from it: its
  processes are started as programs.
- Precision and processes stay those that the machine has: fp16 on a T4, two processes on two GPUs.
- The report stands at the end. It has the sliders: these sites show no widgets but their own.
"""

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import STAGES
from ..files import ROOT

NAME = "colab.ipynb"
WIDTH = 100
TITLE = """# Onepass on Colab or Kaggle

From images to an adapter to a report, on the machine that the site gives you: a GPU or none. \
Upload the wheel into the session's folder first (`make wheel` in a checkout builds it), and turn \
on the internet if you take a base or a source of the hub. If the site asks you to restart the \
session after the installation, do so, and go on below it.

This notebook is written from `1_prepare`, `2_train` and `3_compare`, by \
`python -m nbs_lib.reference`."""
PARAMETERS = """\
wheel = "onepass-0.1.0-py3-none-any.whl"  # Wheel of Onepass, a file or an address
run = "outputs/notebook"  # Folder of the run, beside this notebook"""
INSTALL = "%pip install -q {wheel}"
PROJECT = """\
from pathlib import Path

from nbs_lib.pipeline.new_project import write_project

write_project(Path.cwd())"""
REPORT_WHY = """## The report

One page with all of it, to keep or to send: `report.html` in the run's folder. Drag the edge \
between two pictures; click a picture to see it large."""
REPORT = "HTML(inline_report(config.run))"
# parameters that are set once, or that the machine decides
LEFT_OUT = {"run", "replace", "mixed_precision", "num_processes", "resume_from_checkpoint"}
# arguments beside those of the notebook's own cell
ADDED = {"train": ['launcher="subprocess"']}
# imports of what stays out
NOT_IMPORTED = {"from_notebook", "slider"}
# of text and code, what is otherwise here
CHANGED = {
    ", slider(config.run))": ")",
    "The processes are forked from this kernel, each": "The processes are programs, each",
}

Cell = dict[str, Any]


def notebook() -> str:
    """Return the notebook's JSON. Errors: ValueError if a text to be changed is not there."""
    cells = [_text("colab", TITLE), _code("parameters", PARAMETERS)]
    cells[1]["metadata"] = {"tags": ["parameters"]}
    cells += [_code("install", INSTALL), _code("project", PROJECT)]
    sources = {stage: _read(number, stage) for number, stage in enumerate(STAGES, 1)}
    cells.append(_code("imports", merged_imports(sources)))
    together = json.dumps(list(sources.values()), ensure_ascii=False)
    if missing := [text for text in CHANGED if text not in together]:
        raise ValueError(f"{NAME}: no notebook has {missing[0]!r}; change CHANGED in {__name__}")
    for stage, stage_source in sources.items():
        cells += stage_cells(stage, stage_source)
    cells += [_text("report-why", REPORT_WHY), _code("report", REPORT)]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    page = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


def write() -> list[Path]:
    """Write the notebook; return its path if it changed."""
    path = ROOT / "notebooks" / NAME
    text = notebook()
    # what is unchanged keeps its time, and is not reported
    if path.is_file() and path.read_text("utf-8") == text:
        return []
    path.write_text(text, "utf-8")
    return [path]


def _read(number: int, stage: str) -> list[Cell]:
    path = ROOT / "notebooks" / f"{number}_{stage}.ipynb"
    return json.loads(path.read_text("utf-8"))["cells"]


def merged_imports(sources: dict[str, list[Cell]]) -> str:
    """Return the imports of all notebooks, each name once, as ruff sorts them."""
    # one cell, because what is missing should be missed before anything runs
    names = defaultdict(set)
    for cells in sources.values():
        for cell in cells:
            if is_import(cell):
                for node in ast.parse("".join(cell["source"])).body:
                    names[node.module] |= {alias.name for alias in node.names} - NOT_IMPORTED
    names["nbs_lib.compare.report.inline"].add("inline_report")
    lines = [_import_line(module, names[module]) for module in sorted(names) if names[module]]
    ours = [line for line in lines if line.startswith("from nbs_lib")]
    others = [line for line in lines if line not in ours]
    return "\n".join([*others, "", *ours])


def _import_line(module: str, names: set[str]) -> str:
    # classes before functions, as ruff sorts them
    ordered = sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in ordered), ")"])


def is_import(cell: Cell) -> bool:
    """Return True for a cell of imports."""
    return cell["cell_type"] == "code" and "".join(cell["source"]).startswith(("from ", "import "))


def stage_cells(stage: str, cells: list[Cell]) -> Iterator[Cell]:
    """Yield the cells of a notebook as a part of the whole."""
    chosen: list[str] = []
    for cell in cells:
        source = "".join(cell["source"])
        # all imports are in one cell
        if is_import(cell):
            continue
        # cells of several notebooks have the same id
        name = f"{stage}-{cell['id']}"
        if cell["cell_type"] == "markdown":
            title = source.replace("# ", "## ", 1) if source[0] == "#" else source
            yield _text(name, _changed(title))
        elif "parameters" in cell["metadata"].get("tags", []):
            lines = [line for line in source.splitlines() if _name(line) not in LEFT_OUT]
            chosen = [f"{_name(line)}={_name(line)}" for line in lines]
            yield _code(name, "\n".join(lines))
        elif "from_notebook(" in source:
            # by name: globals() would hand the parameters of one stage to the next
            arguments = ["run=run", *chosen, *ADDED.get(stage, [])]
            yield _code(name, _call(STAGES[stage].__name__, arguments))
        else:
            yield _code(name, _changed(source))


def _name(line: str) -> str:
    return line.partition(" = ")[0]


def _call(cls: str, arguments: list[str]) -> str:
    """Return the line that makes a config and shows it, as ruff formats it."""
    line = f"config = {cls}({', '.join(arguments)})"
    if len(line) > WIDTH:
        line = "\n".join([f"config = {cls}(", *(f"    {text}," for text in arguments), ")"])
    return f"{line}\nconfig"


def _changed(source: str) -> str:
    for before, after in CHANGED.items():
        source = source.replace(before, after)
    return source


def _text(name: str, source: str) -> Cell:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": _lines(source)}


def _code(name: str, source: str) -> Cell:
    empty = {"execution_count": None, "id": name, "metadata": {}, "outputs": []}
    return {"cell_type": "code"} | empty | {"source": _lines(source)}


def _lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)
