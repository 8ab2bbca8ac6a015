"""Text for a terminal: names and records may hold what a terminal would obey, and it is shown instead."""

import json
import re
from typing import Any

CONTROL_CHARACTERS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
"""Control characters except newline, signs that turn the direction of text, separators of lines, and the bytes of a
file's name that are no UTF-8."""


def printable(text: object, lines: bool = False) -> str:
    """Return a text with what a terminal would obey as escapes, \\x1b for example. lines: newlines stay."""
    shown = CONTROL_CHARACTERS.sub(_escape, str(text))
    return shown if lines else shown.replace("\n", "\\n")


def printable_json(value: Any) -> str:
    """Return a value as JSON in which such characters are escaped as JSON has it, so that a reader gets the same value."""
    # outside of its strings JSON has none of them but for newlines
    return CONTROL_CHARACTERS.sub(
        lambda match: f"\\u{ord(match[0]):04x}",
        json.dumps(value, indent=1, ensure_ascii=False, default=str),
    )


def _escape(match: re.Match) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
