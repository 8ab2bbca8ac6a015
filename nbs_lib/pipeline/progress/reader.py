"""The progress of a stage, read from its run's files: a stage does nothing for it.

metrics.jsonl and usage.jsonl tell a training's step and phase, and the tqdm bar that the notebook
prints last, in log.txt, what the other stages count.
"""

import time
from contextlib import suppress
from pathlib import Path

from ...files import parse_object
from ...run.record import metrics_line
from ...run.run import Run, RunError
from ...run.terminal_text import printable
from .bars import BAR, last_output_line, read_bar, read_tail
from .state import Progress, format_duration

MAX_STEPS = 10**9
# the phases that a training records in usage.jsonl
PHASES = {
    "build": "building the engine",
    "train": "training",
    "validate": "validating",
    "checkpoint": "writing a checkpoint",
    "finish": "saving and checking the weights",
}
LOADING = "loading the libraries"
STARTING = {"train": "planning the memory"}


class ProgressReader:
    """The reader of a stage's progress from now on.

    log: the file that the notebook's output goes to, by default the run's
    """

    def __init__(self, run: Run, stage: str, log: Path | None = None):
        self.run = run
        self.stage = stage
        self.log = log or run.log
        self.start = time.monotonic()
        # until the file changes, its lines are those of an earlier training
        self.earlier_metrics = _version(run.metrics)
        self.phases = PhaseReader(run.usage)
        # (step, time), when a line of metrics was first seen
        self.first_step: tuple[int, float] | None = None
        self.last_step: tuple[int, float] | None = None

    def read(self) -> Progress:
        """Return the progress at this moment."""
        seconds = time.monotonic() - self.start
        parts = self._read_training() if self.stage == "train" else self._read_output()
        return Progress(self.stage, seconds, *parts)

    def _record(self) -> dict:
        # a record that is damaged meanwhile is reported by the stage itself
        with suppress(RunError):
            return self.run.stage_record(self.stage)
        return {}

    def _first_activity(self) -> str:
        """Return what a stage does before its files tell anything."""
        begun = self._record().get("status") == "running"
        return STARTING.get(self.stage, "starting") if begun else LOADING

    def _read_output(self) -> tuple:
        """Return activity, fraction and facts of a stage from what its notebook has printed."""
        last_line = last_output_line(self.log)
        if bar := BAR.match(last_line):
            return read_bar(bar)
        return printable(last_line) or self._first_activity(), None, ()

    def _read_training(self) -> tuple:
        """Return activity, fraction and facts of a training."""
        phase = self.phases.read()
        activity = PHASES.get(phase) or self._first_activity()
        metrics = {}
        if _version(self.run.metrics) != self.earlier_metrics:
            metrics = last_metrics(self.run.metrics)
        record = self._record()
        # the training has turned epochs into steps, and recorded them
        steps = record.get("resolved", {}).get("steps")
        if not _is_count(metrics.get("step")) or not _is_count(steps) or not steps:
            return activity, None, ()
        # a reader that began late has seen no phase begin
        activity = PHASES.get(phase or "train", activity)
        facts = [f"step {metrics['step']} of {steps}"]
        if "loss" in metrics:
            facts.append(f"loss {metrics['loss']:.4f}")
        if "examples_per_s" in metrics:
            facts.append(f"{metrics['examples_per_s']:.3g} examples/s")
        patience = record.get("parameters", {}).get("early_stopping_patience")
        at_most = "at most " if patience else ""
        facts += [f"{at_most}{left} left" for left in self._time_left(metrics["step"], steps)]
        return activity, min(1.0, metrics["step"] / steps), tuple(facts)

    def _time_left(self, step: int, steps: int) -> list[str]:
        now = time.monotonic()
        # a resumed training does not begin at step 0, so its speed counts from the first step seen
        self.first_step = self.first_step or (step, now)
        if self.last_step is None or self.last_step[0] != step:
            self.last_step = (step, now)
        (first, began), (last, reached) = self.first_step, self.last_step
        if last <= first:
            return []
        left = (reached - began) / (last - first) * (steps - last) - (now - reached)
        return [format_duration(max(0.0, left))]


class PhaseReader:
    """The reader of the phases that a training records from now on. path: of usage.jsonl"""

    def __init__(self, path: Path):
        self.path = path
        self.offset = path.stat().st_size if path.is_file() else 0
        self.phase = ""

    def read(self) -> str:
        """Return the last phase, "" before the first one."""
        try:
            with self.path.open("rb") as file:
                # a training from the beginning has emptied the file
                self.offset = self.offset if self.offset <= file.seek(0, 2) else 0
                file.seek(self.offset)
                content = file.read()
        except OSError:
            return self.phase
        # the last line may be half written
        complete = content[: content.rfind(b"\n") + 1]
        self.offset += len(complete)
        for row in filter(None, map(parse_object, complete.splitlines())):
            if isinstance(row.get("stage"), str):
                self.phase = row["stage"]
        return self.phase


class RunProgress:
    """The reader of the progress of a run that another process executes, from now on."""

    def __init__(self, run: Run):
        self.run = run
        self.start = time.monotonic()
        self.reader: ProgressReader | None = None

    def read(self) -> Progress:
        """Return the progress of the stage that is running, or was last."""
        stages = {}
        with suppress(RunError):
            stages = self.run.read().get("stages", {})
        running = [name for name, fields in stages.items() if fields.get("status") == "running"]
        if running and (self.reader is None or self.reader.stage != running[-1]):
            self.reader = ProgressReader(self.run, running[-1])
        if self.reader is None:
            return Progress("", time.monotonic() - self.start, "starting")
        return self.reader.read()


def _is_count(value: object) -> bool:
    # a damaged file may hold any number
    return isinstance(value, int) and 0 <= value < MAX_STEPS


def last_metrics(path: Path) -> dict:
    """Return the last line of metrics.jsonl with a loss, or its last whole line, or {}."""
    # what follows the last newline is a line that is still being written
    rows = [row for row in map(metrics_line, read_tail(path).split(b"\n")[:-1][-5:]) if row]
    # a line of a validation has no loss
    with_loss = [row for row in rows if "loss" in row]
    return (with_loss or rows or [{}])[-1]


def _version(path: Path) -> tuple[int, int] | None:
    """Return a value that changes with a file, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    # both, because a clock may be coarse
    return status.st_mtime_ns, status.st_size
