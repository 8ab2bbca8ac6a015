"""Markdown that a code host and the documentation's site render alike."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence

# an indented line, or columns
ALIGNED = re.compile(r"^ |\S {3,}\S", re.M)
WIDTH = 120  # characters of a line of prose
# a line of a docstring's list: one name or more, a colon, the meaning
ITEM = re.compile(r"([\w`*.]+(?:, [\w`*.]+)*): (.*)")
# words that open a paragraph of their own, as no name of a list does
LABEL = re.compile(r"(Errors|Sources?): ?")
# a docstring may have such a line directly below its prose
OPENING = re.compile(r"\n(?=Errors: |Sources?: )")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. A bar in a cell is escaped, because it would end the cell."""
    lines = [_row(head), "|---" * len(head) + "|"]
    return "\n".join(lines + [_row(row) for row in rows])


def _row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def block(text: str, kind: str = "text") -> str:
    """Return a fenced block. kind: the language, for its colours."""
    return f"```{kind}\n{text}\n```"


def inline(text: str) -> str:
    """Return prose in one line, whose signs mean themselves except between backticks."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace("<", "&lt;").replace("*", r"\*")
    return "".join(parts)


def prose(text: str, indent: str = "") -> str:
    """Return a paragraph in lines of WIDTH. indent: of all lines but the first."""
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def docstring(text: str) -> str:
    """Return a docstring as paragraphs, lists of names, and blocks of indented lines."""
    if not text:
        return ""
    parts = []
    for paragraph in re.split(r"\n{2,}", OPENING.sub("\n\n", inspect.cleandoc(text))):
        lines = paragraph.splitlines()
        if _is_list(lines):
            parts.append(_bullets(lines))
        elif ALIGNED.search(paragraph):
            parts.append(block(textwrap.dedent(paragraph)))
        else:
            parts.append(prose(LABEL.sub(r"*\1:* ", inline(paragraph), count=1)))
    return "\n\n".join(parts)


def _is_list(lines: list[str]) -> bool:
    if LABEL.match(lines[0]):
        return False
    return all(line.startswith(" ") or ITEM.match(line) for line in lines) and lines[0][0] != " "


def _bullets(lines: list[str]) -> str:
    items = []
    for line in lines:
        if line.startswith(" "):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    bullets = []
    for item in items:
        names, meaning = ITEM.fullmatch(item).groups()
        code = ", ".join(f"`{name.strip('`')}`" for name in names.split(", "))
        bullets.append(prose(f"- {code}: {inline(meaning)}", "  "))
    return "\n".join(bullets)
