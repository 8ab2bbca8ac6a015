"""Parameters shown to people: as text, as HTML, as Markdown, and as the lines of a notebook's `parameters` cell."""

import json
import textwrap
from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import Any

from .fields import Parameter

STYLE = "text-align:left;vertical-align:top;white-space:normal"
WIDEST = 48
"""Characters of a value in a table of text; a longer one is cut."""
LINE = 100
"""Characters of a line of the `parameters` cell, and of text in a terminal."""
INDENT = " " * 6


def by_group(parameters: list[Parameter]) -> Iterator[tuple[str, list[Parameter]]]:
    """Yield title and parameters of each group, in the order in which the groups begin."""
    titles = list(dict.fromkeys(parameter.group for parameter in parameters))
    ordered = sorted(parameters, key=lambda parameter: titles.index(parameter.group))
    for title, members in groupby(ordered, key=lambda parameter: parameter.group):
        yield title, list(members)


def literal(value: Any) -> str:
    """Return a plain value as Python writes it, texts between double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def text_table(parameters: list[Parameter], values: dict[str, Any], usual: dict[str, Any]) -> str:
    """Return name, value and meaning of each parameter on a line.

    usual: the values that a stage has by default; a star marks each value that differs from it.
    """
    shown = {name: _cut(literal(value)) for name, value in values.items()}
    names, width = max(map(len, shown)), max(map(len, shown.values()))
    lines = []
    for title, members in by_group(parameters):
        lines += ["", title] if lines else [title]
        for each in members:
            star = " " if values[each.name] == usual[each.name] else "*"
            lines.append(f"{star} {each.name:{names}}  {shown[each.name]:{width}}  {each.brief}")
    return "\n".join(lines)


def html_table(parameters: list[Parameter], values: dict[str, Any], usual: dict[str, Any]) -> str:
    """Return name, value and meaning of each parameter as a table.

    usual: the values that a stage has by default; each value that differs from it is bold.
    """
    rows = []
    for title, members in by_group(parameters):
        rows.append(
            f'<tr><th colspan="3" scope="rowgroup" style="{STYLE};padding-top:1em">{escape(title)}</th></tr>'
        )
        rows += [
            _row(each, values[each.name], values[each.name] != usual[each.name]) for each in members
        ]
    return f'<table class="onepass-parameters">{"".join(rows)}</table>'


def _row(parameter: Parameter, value: Any, bold: bool) -> str:
    cells = [
        f"<code>{parameter.name}</code>",
        f"<code>{escape(literal(value))}</code>",
        escape(parameter.meaning),
    ]
    if bold:
        cells[:2] = [f"<b>{cell}</b>" for cell in cells[:2]]
    return "<tr>" + "".join(f'<td style="{STYLE}">{cell}</td>' for cell in cells) + "</tr>"


def reference_table(parameters: list[Parameter]) -> str:
    """Return name and default of each parameter, and below them its meaning and what is allowed, as text."""
    lines = []
    for title, members in by_group(parameters):
        lines += ["", title] if lines else [title]
        for each in members:
            lines.append(f"  {each.name} = {literal(each.default)}")
            about = f"{each.meaning} Allowed: {each.allowed}."
            lines += textwrap.wrap(about, LINE, initial_indent=INDENT, subsequent_indent=INDENT)
    return "\n".join(lines)


def markdown_tables(parameters: list[Parameter]) -> str:
    """Return the same as Markdown, a heading and a table for each group."""
    parts = []
    for title, members in by_group(parameters):
        rows = [
            f"### {title}",
            "",
            "| parameter | default | allowed | meaning |",
            "|---|---|---|---|",
        ]
        for each in members:
            cells = [f"`{each.name}`", f"`{literal(each.default)}`", each.allowed, each.meaning]
            rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def notebook_line(parameter: Parameter) -> str:
    """Return a line of the `parameters` cell. Errors: ValueError if it is too long, or papermill would not read it."""
    line = f"{parameter.name} = {literal(parameter.default)}  # {parameter.brief}"
    if len(line) > LINE or line.count("=") != 1:
        raise ValueError(f"no line for a notebook, {len(line)} characters of {LINE}: {line}")
    return line


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
