"""Scripts and styles of the live widgets."""

from pathlib import Path

import anywidget
from traitlets import TraitType

HERE = Path(__file__).parent


def script(name: str) -> str:
    """Return the source of a widget's module, with the helpers that all share before it."""
    # an anywidget is one script: it cannot import another file
    helpers = (HERE / "live.js").read_text("utf-8")
    return helpers + (HERE / f"{name}.js").read_text("utf-8")


def style(*names: str) -> str:
    """Return the style of a widget: files of these names, then the one that all share."""
    return "".join((HERE / f"{name}.css").read_text("utf-8") for name in (*names, "live"))


class LiveWidget(anywidget.AnyWidget):
    """A widget that shares all its traits with its page."""

    def __init_subclass__(cls, **options):
        for trait in vars(cls).values():
            # all of them, so that none is forgotten
            if isinstance(trait, TraitType):
                trait.tag(sync=True)
        super().__init_subclass__(**options)
