"""The playground: type prompts, and see each contender's pictures from the same noise."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from random import Random
from typing import Any

import ipywidgets

from ...config import REFERENCE_PROMPTS, Compare, Play
from ...files import read_jsonl, value_hash
from ...run.run import Run, RunError
from ..report.html import picture_url
from ..sampling.long_prompts import no_truncation_warnings
from ..sampling.sample_cache import provenance
from ..sampling.sampler import Sampler, load_sampler
from .blind_test import BlindTest, plan_pairs
from .controls import ControlPanel, panel_context
from .gallery import Gallery, GalleryRow, page_row, save
from .jobs import STOPPED, resolve_contender, sample_contenders, truncation_note
from .sampling_thread import SamplingThread
from .viewer import Viewer

MAX_ROWS = 100  # rows of the gallery; the oldest are removed, or a long day would fill the memory

_open: list["Playground"] = []


class Playground:
    """The page over one sampler. A notebook shows `widget`, and `blind` below it.

    Python code may change fields and call methods as the page does; `thread.wait()` waits for the
    pictures.
    """

    def __init__(self, sampler: Sampler, run: Run, config: Play):
        """Create the page and draw its first pictures."""
        self.sampler = sampler
        self.run = run
        self.config = config
        self.rng = Random()
        self.thread = SamplingThread()
        self.rows: dict[int, GalleryRow] = {}
        self._numbers = count(1)
        self._viewed = (0, "")  # the row and the contender at the right of the viewer
        own_prompts = run.stage_record("compare").get("parameters", {}).get("prompts")
        saved = read_jsonl(run.folder / "gallery" / "gallery.jsonl")
        history = [row["prompt"] for row in saved if isinstance(row.get("prompt"), str)]
        self.panel = ControlPanel(
            context=panel_context(run, sampler, own_prompts or REFERENCE_PROMPTS),
            history=unique(history[::-1]),
        )
        self.panel.fill(config, sampler.resolver.w_train)
        self.viewer = Viewer()
        self.gallery = Gallery()
        self.blind = BlindTest(run, self.thread)
        for widget in (self.panel, self.gallery, self.blind):
            widget.on_msg(self._on_message)
        self.panel.observe(lambda _: self.draw_in_background(), "draw_requests")
        visible = {"overflow": "visible"}  # or a focus ring at the edge would be cut off
        self.panel.layout = visible | {"flex": "1 1 340px"}
        self.viewer.layout = visible | {"flex": "1.4 1 400px"}
        top = ipywidgets.HBox([self.panel, self.viewer], layout=visible | {"flex_flow": "row wrap"})
        self.widget = ipywidgets.VBox([top, self.gallery], layout=visible)
        self._widgets = [self.widget, top, self.panel, self.viewer, self.gallery, self.blind]
        self.draw(self.thread.run_here)

    def _on_message(self, _, message, buffers):
        """Do what a button of the page asks for."""
        actions = {
            "stop": self.thread.stop,
            "shuffle": self.shuffle,
            "look": self.look,
            "save": self.save,
            "start": self.start_blind,
            "vote": self.blind.vote,
            "end": self.blind.end,
        }
        actions[message["do"]](*message.get("with", []))

    def close(self):
        """Stop the sampling and release the page."""
        self.thread.stop()
        with suppress(TimeoutError):
            self.thread.wait(60)
        # ipywidgets holds every widget until it is closed, and a widget holds its observers
        for widget in self._widgets:
            widget.close()
        self.sampler = None  # the notebook may still hold this page, and the page the model

    def draw_in_background(self):
        """Draw what the controls say, beside the page, from new noise unless it is locked."""
        if not self.panel.locked and not self.thread.busy:
            self.shuffle()
        self.draw(self.thread.start)

    def shuffle(self):
        """Replace the seeds by as many others."""
        n_seeds = max(1, len(self.panel.seeds.replace(",", " ").split()))
        self.panel.seeds = ", ".join(str(self.rng.randrange(2**31)) for _ in range(n_seeds))

    def draw(self, start: Callable[[Callable[[], None]], Any]):
        """Draw what the controls say. start: runs the job, `thread.run_here` or `thread.start`."""
        request = self._request()
        if request is None:
            return
        if self.thread.busy:
            self.viewer.message = "Something is being drawn already; wait for it, or stop it."
            return
        self.panel.history = unique([*request.prompts, *self.panel.history])
        self.panel.busy = True
        self.panel.show_progress(0, 0, "Getting ready")
        start(partial(self._sample, request))

    def _request(self):
        """Return the parameters in the controls; if they are wrong, show the error instead."""
        self.viewer.message = ""
        try:
            return self.panel.request(self.config, self.sampler.resolver.w_train)
        except ValueError as failure:
            self.viewer.message = str(failure)
            return None

    def _sample(self, request):
        """Sample in the sampling thread."""
        rows = []

        def on_progress(step, n_steps, task):
            self.thread.post(lambda: self.panel.show_progress(step, n_steps, task))

        try:
            rows = sample_contenders(self.sampler, request, self.thread.check, on_progress)
        finally:
            # also after an error, or the page would stay busy
            self.thread.post(lambda: self._finish(request, rows))

    def _finish(self, request, rows):
        """Show the pictures, or why there are none."""
        self.panel.busy = False
        self.panel.task = ""
        samples = [item for *_, by_name in rows for item in by_name.items()]
        if not any(sample.image is not None for _, sample in samples):
            notes = unique([f"{name}: {sample.note}" for name, sample in samples])
            stopped = all(sample.note == STOPPED for _, sample in samples)
            self.viewer.message = "Stopped; nothing was finished." if stopped else "\n".join(notes)
            return
        new_rows = []
        for prompt, seed, by_name in rows:
            row = GalleryRow(next(self._numbers), prompt, seed, request, by_name)
            self.rows[row.number] = row
            new_rows.append(page_row(self.run, row))
        self.gallery.rows = [*new_rows, *self.gallery.rows][:MAX_ROWS]
        # the full pictures go with the rows of the page
        numbers = [row["number"] for row in self.gallery.rows]
        self.rows = {number: self.rows[number] for number in numbers}
        self.panel.note = truncation_note(request.prompts, self.sampler.base)
        self.look(numbers[0])

    def look(self, number: int, name: str = ""):
        """Show a row of the gallery in the viewer. name: at the right, see `GalleryRow.sides`."""
        row = self.rows[number]
        last_number, last_name = self._viewed
        before, after = row.sides(name, last_name if last_number == number else "")
        self._viewed = number, after
        with self.viewer.hold_sync():
            for side, contender in (("before", before), ("after", after)):
                sample = row.samples[contender]
                url = "" if sample.image is None else picture_url(sample.image)
                self.viewer.set_side(side, url, contender, sample.note)
            self.viewer.alt = f"{row.prompt} (seed {row.seed})"
            self.viewer.message = ""

    def save(self, number: int):
        """Save a row's pictures to the run, and say beside the row what became of it."""
        try:
            files = save(self.run, self.rows[number])
            message = f"Saved: {len(files)} pictures in {files[0].parent}"
        except (ValueError, OSError, RunError) as failure:
            message = f"Not saved: {failure}"
        self.gallery.messages = self.gallery.messages | {str(number): message}

    def start_blind(self):
        """Start a blind test of the chosen contenders, on the prompts in the controls."""
        request = self._request()
        if request is None:
            self.blind.message = self.viewer.message
            return
        settings, hashes = {}, {}
        try:
            for name in request.contenders:
                settings[name] = resolve_contender(self.sampler, request, name)
                # by tomorrow a contender of the same name may be another one
                hashes[name] = value_hash(provenance(self.sampler, settings[name]))[:16]
            pairs = plan_pairs(request.contenders, request.prompts, request.pairs, self.rng)
        except (ValueError, OSError) as failure:
            self.blind.message = str(failure)
            return
        parameters = {"steps": request.steps, "scheduler": request.scheduler, "made": hashes}
        self.blind.start(pairs, parameters, partial(self._draw_one, settings))

    def _draw_one(self, settings, name, prompt, seed):
        """Return one picture of a blind test, in the sampling thread."""
        with no_truncation_warnings():
            samples = self.sampler.sample(
                settings[name],
                [prompt],
                [seed],
                lambda *_: self.thread.check(),
            )
        return samples.images[0]


def unique(items: list[str]) -> list[str]:
    """Return the items without repetitions, in their order."""
    return list(dict.fromkeys(items))


def playground(config: Play) -> Playground:
    """Return a playground over a run's base and adapter, and close an earlier one.

    Errors: RunError while the run trains, FileNotFoundError without an adapter, BaseError for an
    adapter of another base.
    """
    run = Run(config.run)
    if run.stage_record("train").get("status") == "running":
        raise RunError(
            f"{run.folder}: its training has not ended; wait for it, or open a finished run. "
            "If it was killed, notebooks/2_train.ipynb with this run resumes it"
        )
    # the batch size of the run's comparison fits into the memory
    parameters = run.stage_record("compare").get("parameters", {})
    batch_size = parameters.get("batch_size", Compare().batch_size)
    # closed first, or there would be two models in the memory
    while _open:
        _open.pop().close()
    _open.append(Playground(load_sampler(run, batch_size), run, config))
    return _open[0]
