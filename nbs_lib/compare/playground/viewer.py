"""Two pictures against each other: an edge between them, side by side, their difference, one after the other."""

from html import escape
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from ...run.run import Run
from ..report.html import PAIRS, picture_url, read_results
from .widgets import script, style

SIDE = 256  # pixels of a plain picture
MODES = ("slider", "side by side", "difference", "flip")


class Viewer(anywidget.AnyWidget):
    """Two pictures of one prompt; every mode takes pointer and keys.

    before, after: pictures as data URLs; where one is empty, its note stands in its place. position: percent of the width
    that shows `before`, in the mode `slider`; turned: whether the mode `flip` shows `after`. words: stand above both, or alone
    where there is no picture.
    """

    _esm, _css = script("viewer"), style("viewer")
    before = traitlets.Unicode().tag(sync=True)
    after = traitlets.Unicode().tag(sync=True)
    before_label = traitlets.Unicode().tag(sync=True)
    after_label = traitlets.Unicode().tag(sync=True)
    before_note = traitlets.Unicode().tag(sync=True)
    after_note = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    words = traitlets.Unicode().tag(sync=True)
    mode = traitlets.Enum(MODES, MODES[0]).tag(sync=True)
    position = traitlets.Int(50, min=0, max=100).tag(sync=True)
    turned = traitlets.Bool(False).tag(sync=True)

    def plain(self) -> str:
        """What is shown, as HTML that needs no widget."""
        sides = [
            (self.before, self.before_label, self.before_note),
            (self.after, self.after_label, self.after_note),
        ]
        words = f"<p>{escape(self.words)}</p>" if self.words else ""
        return words + "".join(_figure(*side, self.alt) for side in sides if side != ("", "", ""))


def _figure(url: str, name: str, note: str, alt: str) -> str:
    look = f'width="{SIDE}" style="image-rendering: pixelated"'
    image = f'<img src="{url}" alt="{escape(f"{name}: {alt}")}" {look}>' if url else ""
    caption = f"<figcaption>{escape(name)}: {escape(note)}</figcaption>"
    return f'<figure style="display: inline-block; margin: 0 12px 0 0">{image}{caption}</figure>'


def slider(folder: str | Path, width: int = 384) -> ipywidgets.VBox:
    """The comparison of a run: choose the prompt and the pair, move the edge. Children: prompt, pair, Viewer.

    Errors: FileNotFoundError where there is no comparison yet.
    """
    run = Run(folder)
    pictures = read_results(run)["pictures"]
    names = [(f"{each['prompt']} (seed {each['seed']})", i) for i, each in enumerate(pictures)]
    prompt = ipywidgets.Dropdown(
        options=names, value=0, description="Prompt", layout={"width": f"{width}px"}
    )
    pairs = [(f"{left} | {right}", (left, right)) for left, right in PAIRS]
    pair = ipywidgets.Dropdown(
        options=pairs, value=PAIRS[0], description="Pair", layout={"width": f"{width}px"}
    )
    shown = Viewer(layout={"max_width": f"{2 * width}px"})

    def show(_=None):
        picture, sides = pictures[prompt.value], pair.value
        before, after = (picture_url(run.compare / picture["files"][side]) for side in sides)
        with shown.hold_sync():
            shown.before, shown.after, shown.alt = before, after, picture["prompt"]
            shown.before_label, shown.after_label = sides

    prompt.observe(show, "value")
    pair.observe(show, "value")
    show()
    return ipywidgets.VBox([prompt, pair, shown])
