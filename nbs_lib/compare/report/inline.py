"""The report inside a notebook, for sites that open no local pages."""

from pathlib import Path

from markupsafe import Markup

from ...run.run import Run

# a frame of its own: the page's styles and scripts then concern it alone
FRAME = Markup(
    '<iframe srcdoc="{}" title="Report of {}" '
    'style="width: 100%; height: 850px; border: 1px solid #ccc"></iframe>'
)


def inline_report(run: str | Path) -> str:
    """Return `report.html` of a run as HTML for a notebook's output.

    Errors: FileNotFoundError without a comparison.
    """
    run = Run(run)
    return FRAME.format(run.report.read_text("utf-8"), run.name)
