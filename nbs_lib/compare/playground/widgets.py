"""What the live widgets share: one style, and a few helpers of their scripts.

An anywidget is one script, so the helpers stand before each.
"""

from pathlib import Path

HERE = Path(__file__).parent


def script(name: str) -> str:
    """The source of a widget's module."""
    return (HERE / "live.js").read_text(encoding="utf-8") + (HERE / f"{name}.js").read_text(
        encoding="utf-8"
    )


def style(*more: str) -> str:
    """The style of a widget. more: of other files, before it."""
    return "".join((HERE / f"{name}.css").read_text(encoding="utf-8") for name in (*more, "live"))
