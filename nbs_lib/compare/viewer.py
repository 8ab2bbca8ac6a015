"""The before/after slider, over the pictures of a finished comparison."""

from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from ..run import Run
from .report import PAIRS, data_url, read_results

HERE = Path(__file__).parent


class Slider(anywidget.AnyWidget):
    """Two pictures, one over the other; the range between them takes pointer and arrow keys.

    before, after: pictures as data URLs; position: percent of the width that shows `before`.
    """

    _esm = HERE / "viewer.js"
    _css = HERE / "viewer.css"
    before = traitlets.Unicode().tag(sync=True)
    after = traitlets.Unicode().tag(sync=True)
    before_label = traitlets.Unicode().tag(sync=True)
    after_label = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    position = traitlets.Int(50, min=0, max=100).tag(sync=True)


def slider(folder: str | Path, width: int = 384) -> ipywidgets.VBox:
    """The comparison of a run: choose the prompt and the pair, move the edge. Children: prompt, pair, Slider.

    Errors: FileNotFoundError where there is no comparison yet.
    """
    run = Run(folder)
    pictures = read_results(run)["pictures"]
    names = [(f"{each['prompt']} (seed {each['seed']})", i) for i, each in enumerate(pictures)]
    prompt = ipywidgets.Dropdown(options=names, value=0, description="Prompt", layout={"width": f"{width}px"})
    pairs = [(f"{left} | {right}", (left, right)) for left, right in PAIRS]
    pair = ipywidgets.Dropdown(options=pairs, value=PAIRS[0], description="Pair", layout={"width": f"{width}px"})
    shown = Slider(layout={"width": f"{width}px"})

    def show(_=None):
        picture, sides = pictures[prompt.value], pair.value
        before, after = (data_url(run.compare / picture["files"][side]) for side in sides)
        with shown.hold_sync():
            shown.before, shown.after, shown.alt = before, after, picture["prompt"]
            shown.before_label, shown.after_label = sides

    prompt.observe(show, "value")
    pair.observe(show, "value")
    show()
    return ipywidgets.VBox([prompt, pair, shown])
