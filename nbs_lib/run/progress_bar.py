"""Progress bars for notebooks."""

import sys

from tqdm.std import tqdm


def progress_bar(desc: str | None = None, **options) -> tqdm:
    """Return tqdm's bar on stdout."""
    # JupyterLab shows stderr in a pink box
    return tqdm(desc=desc, file=sys.stdout, **options)


def write_above_bar(line: str):
    """Print a line above the active bar, if there is one."""
    # print would cut the bar in two
    tqdm.write(line)
