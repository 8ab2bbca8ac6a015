"""The playground: type prompts, see who draws what, from the same noise.

panel     the controls
drawing   what they ask for, in the thread of `drawer`
viewer    two of the pictures against each other
gallery   all that were made: saved to the run, copied as a recipe
blind     pairs without names, and votes
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random

import ipywidgets
import numpy as np

from ...config import REFERENCE_PROMPTS, Compare, Play
from ...files import read_jsonl, value_hash
from ...run.run import Run, RunError
from ..report.html import picture_url
from ..sampling.long_prompts import no_truncation_warnings
from ..sampling.provenance import provenance
from ..sampling.sampler import SCHEDULERS, Sampler, load_sampler
from .blind_test import BlindTest
from .choices import contender_options
from .controls import ControlPanel, offered_contenders
from .gallery import Gallery, GalleryRow, row, save
from .jobs import STOPPED, draw, truncated_prompts
from .sampling_thread import SamplingThread
from .viewer import Viewer

KEPT = 100
"""Rows of the gallery; older ones go when more are drawn, so that a long day does not fill the memory."""

_open: list["Playground"] = []


class Playground:
    """The page over one sampler. `widget` is what a notebook shows, and `blind` below it.

    Fields are changed and methods called from Python as on the page; `drawer.wait()` waits for what is being drawn.
    """

    def __init__(self, sampler: Sampler, run: Run, config: Play):
        self.sampler, self.run, self.config, self.rng = sampler, run, config, Random()
        self.drawer, self.drawn, self._number, self._looked = SamplingThread(), {}, 0, (0, "")
        own = run.stage_record("compare").get("parameters", {}).get("prompts") or REFERENCE_PROMPTS
        lines = read_jsonl(run.folder / "gallery" / "gallery.jsonl")
        saved = [line["prompt"] for line in lines if isinstance(line.get("prompt"), str)]
        context = offered_contenders(
            contender_options(run, sampler), SCHEDULERS, own, sampler.w_train
        )
        self.panel = ControlPanel(context=context, history=unique(saved[::-1]))
        self.panel.open_with(config, sampler.w_train)
        self.viewer, self.gallery, self.blind = Viewer(), Gallery(), BlindTest(run, self.drawer)
        for widget in (self.panel, self.gallery, self.blind):
            widget.on_msg(self._heard)
        self.panel.observe(lambda _: self.draw_on(), "wanted")
        wide = {"overflow": "visible"}  # or else a focus ring at the edge would be cut off
        self.panel.layout, self.viewer.layout = (
            wide | {"flex": "1 1 340px"},
            wide | {"flex": "1.4 1 400px"},
        )
        top = ipywidgets.HBox([self.panel, self.viewer], layout=wide | {"flex_flow": "row wrap"})
        self.widget = ipywidgets.VBox([top, self.gallery], layout=wide)
        self._widgets = [self.widget, top, self.panel, self.viewer, self.gallery, self.blind]
        self.draw(self.drawer.here)

    def _heard(self, _, told: dict, buffers: list):
        """What a button of the page asks for."""
        page = {
            "stop": self.drawer.stop,
            "shuffle": self.shuffle,
            "look": self.look,
            "save": self.save,
        }
        page |= {"start": self.start_blind, "vote": self.blind.vote, "end": self.blind.end}
        page[told["do"]](*told.get("with", []))

    def close(self):
        """End what is being drawn, and let go of the page: ipywidgets keeps every widget, and all that hears it."""
        self.drawer.stop()
        with suppress(TimeoutError):
            self.drawer.wait(60)
        for widget in self._widgets:
            widget.close()
        self.sampler = None  # the notebook may still have a name for this page

    def draw_on(self):
        """Draw what the controls say, beside the page; from other noise than before where the seeds are not locked."""
        if not self.panel.locked and not self.drawer.busy:
            self.shuffle()
        self.draw(self.drawer.start)

    def shuffle(self):
        """Other seeds, as many as there are."""
        count = max(1, len(self.panel.seeds.replace(",", " ").split()))
        self.panel.seeds = ", ".join(str(self.rng.randrange(2**31)) for _ in range(count))

    def draw(self, start: Callable[[Callable[[], None]], None]):
        """start: how the drawing is done: `drawer.here` or `drawer.start`."""
        asked = self._asked()
        if asked is None:
            return
        if self.drawer.busy:
            self.viewer.words = "Something is being drawn already; wait for it, or stop it."
            return
        self.panel.history = unique([*asked.prompts, *self.panel.history])
        self.panel.busy, self.panel.done, self.panel.of, self.panel.doing = (
            True,
            0,
            0,
            "Getting ready",
        )
        start(partial(self._draw, asked))

    def _asked(self) -> Play | None:
        """What the controls say; where that cannot be done, None, and the words above the picture."""
        try:
            asked = self.panel.asked(self.config, self.sampler.w_train)
        except ValueError as failure:
            self.viewer.words = str(failure)
            return None
        self.viewer.words = ""
        return asked

    def _draw(self, asked: Play):
        """In the drawer's thread."""
        rows, tell = [], self.drawer.tell
        try:
            rows = draw(
                self.sampler,
                asked,
                self.drawer.check,
                lambda *how: tell(lambda: self.panel.progress(*how)),
            )
        finally:
            tell(lambda: self._ended(asked, rows))

    def _ended(self, asked: Play, rows: list):
        self.panel.busy, self.panel.doing = False, ""
        if not any(shot.image is not None for *_, shots in rows for shot in shots.values()):
            said = unique(
                [f"{name}: {shot.note}" for *_, shots in rows for name, shot in shots.items()]
            )
            stopped = all(shot.note == STOPPED for *_, shots in rows for shot in shots.values())
            self.viewer.words = "Stopped; nothing was finished." if stopped else "\n".join(said)
            return
        added = []
        for prompt, seed, shots in rows:
            self._number += 1
            self.drawn[self._number] = drawn = GalleryRow(self._number, prompt, seed, asked, shots)
            added.append(row(self.run, drawn))
        self.gallery.rows = [*added, *self.gallery.rows][:KEPT]
        self.drawn = {each["number"]: self.drawn[each["number"]] for each in self.gallery.rows}
        self.panel.note = truncated_prompts(asked.prompts, self.sampler.base)
        self.look(self.gallery.rows[0]["number"])

    def look(self, number: int, name: str = ""):
        """Put a row of the gallery into the viewer. name: goes to the right; what was there of the same row, to the left."""
        drawn, (looked, was) = self.drawn[number], self._looked
        failed = [
            each for each, shot in drawn.shots.items() if shot.image is None
        ]  # its words are to be seen
        after = name or first([*failed, *drawn.shots], "tuned" if not failed else failed[0])
        others = [each for each in drawn.shots if each != after] or [after]
        before = was if looked == number and was in others else first(others, "guided")
        self._looked = number, after
        with self.viewer.hold_sync():
            for side, who in (("before", before), ("after", after)):
                shot = drawn.shots[who]
                setattr(self.viewer, side, "" if shot.image is None else picture_url(shot.image))
                setattr(self.viewer, f"{side}_label", who)
                setattr(self.viewer, f"{side}_note", shot.note)
            self.viewer.alt, self.viewer.words = f"{drawn.prompt} (seed {drawn.seed})", ""

    def save(self, number: int):
        """Save a row's pictures to the run; what came of it is said beside the row."""
        try:
            files = save(self.run, self.drawn[number], {"run": self.run.name})
            said = f"Saved: {len(files)} pictures in {files[0].parent}"
        except (ValueError, OSError, RunError) as failure:
            said = f"Not saved: {failure}"
        self.gallery.said = self.gallery.said | {str(number): said}

    def start_blind(self):
        """A blind comparison of the chosen contenders, on the prompts of the controls."""
        asked = self._asked()
        if asked is None:
            self.blind.said = self.viewer.words
            return

        def picture(name: str, prompt: str, seed: int) -> np.ndarray:
            watch = lambda done, of: self.drawer.check()  # noqa: E731
            with no_truncation_warnings():
                told = self.sampler.sample(
                    name, [prompt], [seed], asked.steps, scheduler=asked.scheduler, watch=watch
                )
            return told.images[0]

        try:
            # a contender of the same name may be another one by tomorrow
            ways = {
                name: self.sampler.ways.of(name, asked.steps, scheduler=asked.scheduler)
                for name in asked.contenders
            }
            who = {
                name: value_hash(provenance(self.sampler, way))[:16] for name, way in ways.items()
            }
            parameters = {"steps": asked.steps, "scheduler": asked.scheduler, "made": who}
            self.blind.start(
                asked.contenders, asked.prompts, asked.pairs, parameters, picture, self.rng
            )
        except (ValueError, OSError) as failure:
            self.blind.said = str(failure)


def first(names: list[str], kind: str) -> str:
    """The first contender of a kind, or else the first."""
    return next((name for name in names if name.startswith(kind)), names[0])


def unique(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


def playground(config: Play) -> Playground:
    """A playground over a run's base and adapter. One of before is closed: two would hold two models.

    Errors: RunError while the run trains, FileNotFoundError where it has no adapter, BaseError where that is of another base.
    """
    run = Run(config.run)
    if run.stage_record("train").get("status") == "running":
        raise RunError(
            f"{run.folder}: its training has not ended; wait for it, or open a finished run. If it was killed, "
            f"notebooks/2_train.ipynb with this run goes on with it"
        )
    # as many at once as its comparison takes: what fits
    batch_size = (
        run.stage_record("compare").get("parameters", {}).get("batch_size", Compare().batch_size)
    )
    while _open:
        _open.pop().close()
    _open.append(Playground(load_sampler(run, batch_size), run, config))
    return _open[0]
