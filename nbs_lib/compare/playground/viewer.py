"""The viewer: two pictures as a slider, side by side, as their difference, or in turns."""

from html import escape
from pathlib import Path

import ipywidgets
from traitlets import Bool, Enum, Int, Unicode

from ...run.run import Run
from ..report.html import PAIRS, picture_url, read_results
from .widgets import LiveWidget, script, style

SIDE = 256  # pixels of a plain picture
MODES = ("slider", "side by side", "difference", "flip")


class Viewer(LiveWidget):
    """Two pictures of one prompt; every mode takes pointer and keys.

    before, after: pictures as data URLs; the note of an empty one stands in its place
    preview, task: what is being sampled, as a data URL that hides the two, and its name
    """

    _esm = script("viewer")
    _css = style("viewer")
    before = Unicode()
    after = Unicode()
    before_label = Unicode()
    after_label = Unicode()
    before_note = Unicode()
    after_note = Unicode()
    alt = Unicode()
    preview = Unicode()
    task = Unicode()
    mode = Enum(MODES, MODES[0])
    # percent of the width that shows `before`, in the mode `slider`
    position = Int(50, min=0, max=100)
    flipped = Bool(False)  # true if the mode `flip` shows `after`

    def set_side(
        self,
        side: str,
        url: str,
        label: str,
        note: str,
    ):
        """Set the picture of a side, `before` or `after`, with its label and note."""
        setattr(self, side, url)
        setattr(self, f"{side}_label", label)
        setattr(self, f"{side}_note", note)

    def show_preview(self, url: str, task: str):
        """Show a picture that is being sampled in place of the two; "" ends it."""
        with self.hold_sync():
            self.preview = url
            self.task = task

    def plain(self) -> str:
        """Return the two pictures as HTML that needs no widget."""
        html = _figure(self.before, self.before_label, self.before_note, self.alt)
        return html + _figure(self.after, self.after_label, self.after_note, self.alt)


def _figure(url, name, note, alt):
    if not (url or name or note):
        return ""
    # square pixels: pictures of the picture-book are 64 wide
    look = f'width="{SIDE}" style="image-rendering: pixelated"'
    image = f'<img src="{url}" alt="{escape(f"{name}: {alt}")}" {look}>' if url else ""
    caption = f"<figcaption>{escape(name)}: {escape(note)}</figcaption>"
    return f'<figure style="display: inline-block; margin: 0 12px 0 0">{image}{caption}</figure>'


def slider(folder: str | Path, width: int = 384) -> ipywidgets.VBox:
    """Return the comparison of a run as widgets: the prompt, the pair, and a Viewer.

    folder: the run's
    width: pixels of a picture
    Errors: FileNotFoundError without a comparison.
    """
    run = Run(folder)
    pictures = read_results(run)["pictures"]
    layout = {"width": f"{width}px"}
    prompts = [
        (f"{picture['prompt']} (seed {picture['seed']})", index)
        for index, picture in enumerate(pictures)
    ]
    prompt = ipywidgets.Dropdown(options=prompts, value=0, description="Prompt", layout=layout)
    pairs = [(f"{left} | {right}", (left, right)) for left, right in PAIRS]
    pair = ipywidgets.Dropdown(options=pairs, value=PAIRS[0], description="Pair", layout=layout)
    viewer = Viewer(layout={"max_width": f"{2 * width}px"})

    def show(_=None):
        picture = pictures[prompt.value]
        before, after = pair.value
        # at once: a page must not show one pair's picture under another's name
        with viewer.hold_sync():
            viewer.before = picture_url(run.compare / picture["files"][before])
            viewer.after = picture_url(run.compare / picture["files"][after])
            viewer.before_label = before
            viewer.after_label = after
            viewer.alt = picture["prompt"]

    prompt.observe(show, "value")
    pair.observe(show, "value")
    show()
    return ipywidgets.VBox([prompt, pair, viewer])
