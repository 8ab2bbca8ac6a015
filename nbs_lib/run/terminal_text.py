"""Text for a terminal: control characters in names and records are shown, not obeyed."""

import json
import re
from typing import Any

# Control characters except newline, marks that change the direction of text, line separators, and
# the bytes of a file's name that are no UTF-8.
CONTROL_CHARACTERS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def printable(text: object, lines: bool = False) -> str:
    """Return a text with control characters as escapes, \\x1b for example.

    lines: keep newlines
    """
    escaped = CONTROL_CHARACTERS.sub(_escape, str(text))
    return escaped if lines else escaped.replace("\n", "\\n")


def printable_json(value: Any) -> str:
    """Return a value as JSON with control characters escaped, so a reader gets them back."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    # outside of strings JSON has no control character besides newline
    return CONTROL_CHARACTERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(match: re.Match) -> str:
    code = ord(match[0])
    # as Python writes them, so that a name can be copied into a string
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
