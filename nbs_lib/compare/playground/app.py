"""The playground: type prompts, and see each contender's pictures from the same noise."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from html import escape
from random import Random
from typing import Any

import ipywidgets

from ...config import REFERENCE_PROMPTS, Compare, Play
from ...run.run import Run, RunError
from ..report.html import picture_url
from ..sampling.preview import LatentColours
from ..sampling.sample_cache import provenance
from ..sampling.sampler import Sampler, load_sampler
from .blind_test import BlindTest
from .controls import ControlPanel
from .gallery.gallery import Gallery
from .hints import Hints, new_captions
from .jobs import (
    STOPPED,
    Watch,
    draw_one,
    fit_to_row,
    provenance_hash,
    resolve_contenders,
    sample_rows,
)
from .sampling_thread import SamplingThread
from .viewer import Viewer
from .votes import plan_pairs

_open: list["Playground"] = []


class Playground:
    """The page over one sampler. A notebook shows `widget`, and `blind` below it.

    Python code may change fields and call methods as the page does; `thread.wait()` waits for the
    pictures.
    """

    def __init__(self, sampler: Sampler, run: Run, config: Play):
        """Create the page and draw its first pictures, unless the run has them already."""
        self.sampler = sampler
        self.run = run
        self.config = config
        self.rng = Random()
        self.thread = SamplingThread()
        self.colours = LatentColours()
        self._viewed = (0, "")  # the row and the contender at the right of the viewer
        own_prompts = run.stage_record("compare").get("parameters", {}).get("prompts")
        self.panel = ControlPanel(run, sampler, own_prompts or REFERENCE_PROMPTS)
        self.viewer = Viewer()
        self.gallery = Gallery(run)
        self.blind = BlindTest(run, self.thread)
        captions = new_captions(run, sampler.resolver.objective)
        self.hints = Hints(sampler.base, sampler.sizes, captions)
        self.gallery.restore()
        rows = reversed(self.gallery.by_number.values())
        self.panel.history = unique([row.prompt for row in rows])
        self._connect()
        self.panel.fill(config, sampler.resolver)
        self._lay_out()
        if not self._show_earlier():
            self.draw(self.thread.run_here)

    def _connect(self):
        """Connect the parts with the page's buttons and fields."""
        for widget in (self.panel, self.gallery, self.blind):
            widget.on_msg(self._on_message)
        self.panel.observe(lambda _: self.draw_in_background(), "draw_requests")
        self.panel.observe(lambda _: self._hint(), ["prompts", "width", "height"])

    def _lay_out(self):
        visible = {"overflow": "visible"}  # or a focus ring at the edge would be cut off
        self.panel.layout = visible | {"flex": "1 1 340px"}
        self.viewer.layout = visible | {"flex": "1.4 1 400px"}
        top = ipywidgets.HBox([self.panel, self.viewer], layout=visible | {"flex_flow": "row wrap"})
        self.widget = ipywidgets.VBox([top, self.gallery], layout=visible)
        self._widgets = [self.widget, top, self.panel, self.viewer, self.gallery, self.blind]

    def _on_message(self, _, message, buffers):
        """Do what a button of the page asks for."""
        actions = {
            "stop": self.thread.stop,
            "shuffle": self.shuffle,
            "look": self.look,
            "remove": self.gallery.remove,
            "download": self.gallery.download,
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

    def plain(self) -> str:
        """Return what the page shows as HTML that needs no widget."""
        texts = [self.panel.message, self.panel.hints]
        return "".join(f"<p>{escape(text)}</p>" for text in texts if text) + self.viewer.plain()

    def draw_in_background(self):
        """Draw what the controls say, beside the page, from new noise unless it is locked."""
        if not self.panel.locked and not self.thread.busy:
            self.shuffle()
        self.draw(self.thread.start)

    def shuffle(self):
        """Replace the seeds by as many others."""
        n_seeds = max(1, len(self.panel.seeds.replace(",", " ").split()))
        self.panel.seeds = ", ".join(str(self.rng.randrange(2**31)) for _ in range(n_seeds))

    def _hint(self):
        """Say what will not be drawn as it is asked for."""
        panel = self.panel
        panel.hints = self.hints.of_request(panel.prompt_lines, panel.width, panel.height)

    def draw(self, start: Callable[[Callable[[], None]], Any]):
        """Draw what the controls say. start: runs the job, `thread.run_here` or `thread.start`."""
        self.panel.message = ""
        try:
            request = self.panel.request(self.config)
        except ValueError as failure:
            self.panel.message = str(failure)
            return
        if self.thread.busy:
            self.panel.message = "Something is being drawn already; wait for it, or stop it."
            return
        self.panel.history = unique([*request.prompts, *self.panel.history])
        self.panel.busy = True
        self.panel.show_progress(0, 0, "Getting ready")
        start(partial(self._sample, request))

    def _sample(self, request):
        """Sample in the sampling thread."""
        rows = []
        post = self.thread.post
        watch = Watch(
            self.thread.check,
            lambda step, n_steps, task: post(lambda: self.panel.show_progress(step, n_steps, task)),
            lambda image, task: post(lambda: self.viewer.show_preview(picture_url(image), task)),
        )
        try:
            rows = sample_rows(self.sampler, request, self.colours, watch)
        finally:
            # also after an error, or the page would stay busy
            post(lambda: self._finish(rows))

    def _finish(self, rows):
        """Show the pictures, and why there are not more."""
        self.panel.busy = False
        self.panel.task = ""
        self.viewer.show_preview("", "")
        samples = [item for row in rows for item in row.samples.items()]
        failed = [(name, sample.note) for name, sample in samples if sample.image is None]
        notes = unique([f"{name}: {note}" for name, note in failed])
        if len(failed) == len(samples) and all(note == STOPPED for _, note in failed):
            notes = ["Stopped; nothing was finished."]
        self.panel.message = "\n".join(notes)
        if any(row.pictures for row in rows):
            self.look(self.gallery.add(rows))

    def _show_earlier(self) -> bool:
        """Show the pictures of the controls if the run has them; return False if it has not."""
        try:
            request = self.panel.request(self.config)
            settings = resolve_contenders(self.sampler, request)
            expected = {name: provenance(self.sampler, value) for name, value in settings.items()}
        except (ValueError, OSError):
            return False  # drawing says what is wrong
        pairs = [(prompt, seed) for prompt in request.prompts for seed in request.seeds]
        numbers = [self.gallery.find(prompt, seed, expected) for prompt, seed in pairs]
        if None in numbers:
            return False
        # a first drawing would have done so
        fit_to_row(self.colours, self.sampler, self.gallery.by_number[numbers[0]])
        self.look(numbers[0])
        return True

    def look(self, number: int, name: str = ""):
        """Show a row of the gallery in the viewer. name: at the right, see `GalleryRow.sides`."""
        row = self.gallery.by_number[number]
        last_number, last_name = self._viewed
        before, after = row.sides(name, last_name if last_number == number else "")
        self._viewed = number, after
        with self.viewer.hold_sync():
            for side, contender in (("before", before), ("after", after)):
                sample = row.samples[contender]
                url = "" if sample.image is None else picture_url(sample.image)
                self.viewer.set_side(side, url, contender, sample.note)
            self.viewer.alt = f"{row.prompt} (seed {row.seed})"

    def start_blind(self):
        """Start a blind test of the chosen contenders, on the prompts in the controls."""
        try:
            request = self.panel.request(self.config)
            settings = resolve_contenders(self.sampler, request)
            pairs = plan_pairs(request.contenders, request.prompts, request.pairs, self.rng)
            # by tomorrow a contender of the same name may be another one
            hashes = {
                name: provenance_hash(self.sampler, value) for name, value in settings.items()
            }
        except (ValueError, OSError) as failure:
            self.blind.message = str(failure)
            return
        parameters = {"steps": request.steps, "scheduler": request.scheduler, "made": hashes}
        draw = partial(draw_one, self.sampler, self.thread.check, settings)
        self.blind.start(pairs, parameters, draw)


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
