"""The plots of a training as files: loss.png and usage.png."""

import io

from matplotlib.figure import Figure

from ...files import write_atomic
from ...run.run import Run
from .loss_plot import loss_figure
from .usage_plot import usage_figure


def draw_curves(run: Run, weights_step: int):
    """Write loss.png and usage.png into the run. weights_step: the step of the saved weights."""
    write_atomic(run.folder / "loss.png", png(loss_figure(run, weights_step)))
    write_atomic(run.folder / "usage.png", png(usage_figure(run)))


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
