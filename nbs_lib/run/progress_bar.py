"""Progress bars as a notebook shows them: on stdout, because JupyterLab shows what comes on stderr in a pink box."""

import sys

from tqdm.std import tqdm


def progress_bar(desc: str | None = None, **options) -> tqdm:
    """Return a bar of tqdm's on stdout."""
    return tqdm(desc=desc, file=sys.stdout, **options)


def write_above_bar(line: str):
    """Print a line above the bar that moves at the time, if there is one."""
    tqdm.write(line)
