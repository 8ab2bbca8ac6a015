"""The gallery: rows of pictures on the page, all of them in the run's folder."""

from itertools import count
from typing import Any

import numpy as np
from PIL import Image
from traitlets import Dict, List, Unicode

from ....files import from_project
from ....run.run import Run, RunError
from ...report.html import picture_url
from ..widgets import LiveWidget, script, style
from .files import FOLDER, archive, complete_row, now, png, read_rows, remove, save
from .rows import GalleryRow, recipe

THUMBNAIL = 160  # pixels of the longer side of a picture in the gallery, at most
MAX_ROWS = 100  # on the page; older ones stay in the run, or a long day would fill the memory


class Gallery(LiveWidget):
    """Rows of pictures, the newest first.

    The page sends `look`, `remove` and `download`.
    by_number: the rows on the page by their numbers, the oldest first
    """

    _esm = script("gallery")
    _css = style()
    # number, prompt, seed, recipe and samples of each; a sample is name, url and note
    rows = List(Dict())
    messages = Dict()  # about a row, by its number
    folder = Unicode()  # where the pictures are

    def __init__(self, run: Run):
        super().__init__(folder=from_project(run.folder / FOLDER))
        self.run = run
        self.by_number: dict[int, GalleryRow] = {}
        self._numbers = count(1)

    def restore(self):
        """Show the rows that earlier kernels saved."""
        self._show(read_rows(self.run, MAX_ROWS))

    def add(self, rows: list[GalleryRow]) -> int:
        """Show new rows above the others and save them; return the number of the first."""
        time = now()
        complete, problems = [], []
        # the first row last, so that it is on top now and when the rows are read again
        for index, row in enumerate(reversed(rows), 1):
            complete.append(complete_row(self.run, row, time, index))
            problems.append(self._save(complete[-1]))
        numbers = self._show(complete)
        messages = dict(zip(map(str, numbers), problems, strict=True))
        self.messages = self.messages | {key: text for key, text in messages.items() if text}
        return numbers[-1]

    def _save(self, row):
        """Save a row; return what prevents it, "" if nothing does."""
        try:
            save(self.run, row)
        except (OSError, RunError) as failure:
            return f"Not saved: {failure}"  # the pictures are shown all the same
        return ""

    def _show(self, rows):
        """Put rows above the others, the last one on top; return their numbers."""
        numbered = {next(self._numbers): row for row in rows}
        self.by_number |= numbered
        added = [self._page_row(number, row) for number, row in numbered.items()]
        self.rows = [*added[::-1], *self.rows][:MAX_ROWS]
        # the full pictures go with the rows of the page
        shown = {row["number"] for row in self.rows}
        self.by_number = {n: row for n, row in self.by_number.items() if n in shown}
        return list(numbered)

    def _page_row(self, number, row):
        """Return a row as the page takes it."""
        samples = []
        for name, sample in row.samples.items():
            # reduced: the page holds every row until it is closed
            url = "" if sample.image is None else picture_url(thumbnail(sample.image))
            samples.append({"name": name, "note": sample.note, "url": url})
        return {
            "number": number,
            "prompt": row.prompt,
            "seed": row.seed,
            "samples": samples,
            "recipe": recipe(self.run, row.request),
        }

    def find(self, prompt: str, seed: int, settings: dict[str, dict[str, Any]]) -> int | None:
        """Return the number of the newest row with the pictures of `GalleryRow.shows`."""
        for number, row in reversed(self.by_number.items()):
            if row.shows(prompt, seed, settings):
                return number
        return None

    def remove(self, number: int):
        """Remove a row from the page and from the run."""
        try:
            remove(self.run, self.by_number[number])
        except (OSError, RunError) as failure:
            self.messages = self.messages | {str(number): f"Not removed: {failure}"}
            return
        del self.by_number[number]
        self.rows = [row for row in self.rows if row["number"] != number]

    def download(self, token: str, number: int | None = None, name: str = ""):
        """Send a contender's picture, or all of the page as a zip, to the view that asks for it.

        token: by which that view knows its answer
        """
        if number is None:
            file, content = f"{self.run.name}-gallery.zip", archive(self.by_number.values())
        else:
            sample = self.by_number[number].samples[name]
            file, content = sample.metadata["file"], png(sample)
        self.send({"token": token, "file": file}, buffers=[content])


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a picture reduced to THUMBNAIL; small ones stay as they are."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(picture)
