"""Parameters shown to people: text, HTML, and lines of a notebook's `parameters` cell."""

import json
import textwrap
from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import Any

from .fields import Parameter

# Jupyter's own style aligns cells to the right, and keeps a meaning on one line
STYLE = "text-align:left;vertical-align:top;white-space:normal"
# characters of a value in a table of text; a longer one is cut
WIDEST = 48
# characters of a line of the `parameters` cell, and of text in a terminal
LINE = 100
INDENT = " " * 6


def by_group(parameters: list[Parameter]) -> Iterator[tuple[str, list[Parameter]]]:
    """Yield title and parameters of each group, in the order in which the groups begin."""
    titles = list(dict.fromkeys(parameter.group for parameter in parameters))
    # groupby joins neighbours only, and the first group has more fields at the end of the class
    ordered = sorted(parameters, key=lambda parameter: titles.index(parameter.group))
    for title, members in groupby(ordered, key=lambda parameter: parameter.group):
        yield title, list(members)


def literal(value: Any) -> str:
    """Return a plain value as Python writes it, texts between double quotes."""
    if isinstance(value, str):
        # repr would choose single quotes
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def text_table(parameters: list[Parameter], values: dict[str, Any], usual: dict[str, Any]) -> str:
    """Return name, value and meaning of each parameter on a line.

    usual: the values that a stage has by default; a star marks each value that differs from it.
    """
    texts = {name: _cut(literal(value)) for name, value in values.items()}
    name_width = max(map(len, texts))
    value_width = max(map(len, texts.values()))
    lines = []
    for title, members in by_group(parameters):
        lines += ["", title] if lines else [title]
        for parameter in members:
            name = parameter.name
            star = " " if values[name] == usual[name] else "*"
            columns = f"{name:{name_width}}  {texts[name]:{value_width}}"
            lines.append(f"{star} {columns}  {parameter.brief}")
    return "\n".join(lines)


def html_table(parameters: list[Parameter], values: dict[str, Any], usual: dict[str, Any]) -> str:
    """Return the parameters that differ from their default as a table, and all of them folded.

    Each has its name, value and meaning.
    usual: the values that a stage has by default; in the folded table those that differ are bold.
    """
    changed = [
        _row(parameter, values[parameter.name], False)
        for parameter in parameters
        if values[parameter.name] != usual[parameter.name]
    ]
    # thirty rows of defaults would stand between a reader and what the notebook shows
    first = _table(changed) if changed else "<p>All parameters have their defaults.</p>"
    summary = f"<summary>All {len(parameters)} parameters</summary>"
    return f"{first}<details>{summary}{_table(_grouped_rows(parameters, values, usual))}</details>"


def _table(rows: list[str]) -> str:
    return f'<table class="onepass-parameters">{"".join(rows)}</table>'


def _grouped_rows(
    parameters: list[Parameter], values: dict[str, Any], usual: dict[str, Any]
) -> list[str]:
    head = f'<tr><th colspan="3" scope="rowgroup" style="{STYLE};padding-top:1em">'
    rows = []
    for title, members in by_group(parameters):
        rows.append(f"{head}{escape(title)}</th></tr>")
        for parameter in members:
            value = values[parameter.name]
            rows.append(_row(parameter, value, value != usual[parameter.name]))
    return rows


def _row(parameter: Parameter, value: Any, bold: bool) -> str:
    cells = [
        f"<code>{parameter.name}</code>",
        # a value may hold tags, and would leave its cell
        f"<code>{escape(literal(value))}</code>",
        escape(parameter.meaning),
    ]
    if bold:
        # not the meaning, which is the same for every value
        cells[:2] = [f"<b>{cell}</b>" for cell in cells[:2]]
    return "<tr>" + "".join(f'<td style="{STYLE}">{cell}</td>' for cell in cells) + "</tr>"


def reference_table(parameters: list[Parameter]) -> str:
    """Return name and default of each parameter as text.

    Its meaning and the allowed values stand below.
    """
    lines = []
    for title, members in by_group(parameters):
        lines += ["", title] if lines else [title]
        for parameter in members:
            lines.append(f"  {parameter.name} = {literal(parameter.default)}")
            about = f"{parameter.meaning} Allowed: {parameter.allowed}."
            if parameter.objectives:
                about += f" Objectives: {', '.join(parameter.objectives)}."
            lines += textwrap.wrap(about, LINE, initial_indent=INDENT, subsequent_indent=INDENT)
    return "\n".join(lines)


def notebook_line(parameter: Parameter) -> str:
    """Return a line of the `parameters` cell.

    Errors: ValueError if the line is too long, or papermill would not read it.
    """
    line = f"{parameter.name} = {literal(parameter.default)}  # {parameter.brief}"
    # papermill finds a parameter by its only equals sign
    if len(line) > LINE or line.count("=") != 1:
        raise ValueError(f"no line for a notebook, {len(line)} characters of {LINE}: {line}")
    return line


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
