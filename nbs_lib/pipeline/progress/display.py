"""Progress on the screen: one live display in a terminal, elsewhere a plain line now and then."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .state import Progress, Say, format_duration, print_progress

# seconds between two plain lines, in the first minute and after it
FIRST_INTERVAL = 5.0
PLAIN_INTERVAL = 30.0
FIRST_LINES = 12
# states of the live display in a second
REFRESH_RATE = 4
BAR_WIDTH = 24
# columns from which a bar stands beside the facts
MIN_WIDTH = 72
# functions whose lines go to the terminal, where a display may move
PRINTERS = (print, print_progress)
# {label: progress}; a label is "" if there is one progress only
Read = Callable[[], dict[str, Progress]]


@contextmanager
def show_progress(read: Read, say: Say | None) -> Iterator[None]:
    """Show the progress in the context.

    read: returns the progress at a moment
    say: prints plain lines; None shows nothing
    """
    if say is None:
        yield
        return
    if can_move(say):
        with live_display(read):
            yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_print_lines, args=(read, say, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # joined, or its last line could come after the command's next one
        thread.join()


def can_move(say: Say) -> bool:
    """Return True if lines go to a terminal that somebody looks at."""
    # a CI shows its log as plain text, even where it gives a terminal
    plain = os.environ.get("CI") or os.environ.get("TERM") == "dumb"
    return say in PRINTERS and sys.stderr.isatty() and not plain


def _print_lines(read: Read, say: Say, ended: threading.Event):
    n_lines = 0
    while not ended.wait(FIRST_INTERVAL if n_lines < FIRST_LINES else PLAIN_INTERVAL):
        n_lines += 1
        for label, progress in read().items():
            say(f"      {label}{': ' if label else ''}{progress}")


@contextmanager
def live_display(read: Read, console: Any = None) -> Iterator[None]:
    """Show the progress as a display that moves, and is gone at the end.

    console: rich's, by default of the standard error
    """
    # imported here: rich takes a tenth of a second
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    console = console or Console(stderr=True)
    spinner = Spinner("line" if console.options.ascii_only else "dots", style="cyan")

    def render() -> Any:
        return render_progress(read(), spinner, console.width)

    # standard output may be a file that a moving display has no business in
    options = {"redirect_stdout": sys.stdout.isatty(), "transient": True}
    with Live(
        console=console, get_renderable=render, refresh_per_second=REFRESH_RATE, **options
    ) as live:
        live.refresh()
        yield


def render_progress(progress: dict[str, Progress], spinner: Any, width: int) -> Any:
    """Return the progress as a table of rich: a row of activity and one of facts for each label.

    width: columns of the terminal
    """
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    # one display has one moving sign, however many rows it has
    signs = [spinner] + [""] * len(progress)
    table.add_column(width=1)
    table.add_column(overflow="ellipsis", no_wrap=True, max_width=max(10, width - 4))
    for sign, (label, state) in zip(signs, progress.items(), strict=False):
        table.add_row(sign, _activity_line(label, state))
        if state.facts:
            table.add_row("", _facts_line(state, width))
    return table


def _activity_line(label: str, state: Progress) -> Any:
    from rich.text import Text

    parts = [(f"{label}  ", "bold")] if label else []
    parts.append((f"{state.stage} ", "" if label else "bold"))
    parts.append((f"{format_duration(state.seconds)}  ", "cyan"))
    return Text.assemble(*parts, (state.activity, "dim"))


def _facts_line(state: Progress, width: int) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    facts = Text("  ".join(state.facts), overflow="ellipsis", no_wrap=True)
    if state.fraction is None or width < MIN_WIDTH:
        return facts
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=1.0, completed=state.fraction, width=BAR_WIDTH), facts)
    return line
