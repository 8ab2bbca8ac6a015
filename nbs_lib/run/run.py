"""A run: one folder with fixed file names, and the record of what was requested and what happened.

outputs/NAME/
  run.json                 the record, see `record.py` and `stage_recording.py`
  1_prepare.ipynb, .html …   executed notebooks, and each as a page
  cache -> ../cache/KEY    latents and text embeddings, shared between runs
  prepare/                 kept.parquet, dropped.parquet (with the reasons), figures of both
  metrics.jsonl            a line for each logged step
  usage.jsonl              a line for each second (CPU, memory, GPUs) and each phase of training
  loss.png, usage.png      their curves; trackers/ has them for TensorBoard and others
  checkpoints/step-N/      adapter and optimizer; beside them, during it, best.safetensors
  validation/, validation.png   pictures during the training
  adapter/                 the LoRA and its card, or
  model/                   the whole pipeline and its card, if all weights are trained
  samples/                 every picture that was compared, each PNG with its settings
  compare/                 pictures, results.json
  report.html              one self-contained page
  gallery/, votes.jsonl    pictures drawn and votes given in the playground
  export/TO/               the adapter for other programs, see `nbs_lib/export`
  log.txt                  the output of the command and its notebooks, of every attempt
  thumbnail.png            a picture for the index of runs
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import isfile
from pathlib import Path
from typing import Any

from ..config import PLACE, STAGES
from ..config.validation import as_parameters
from ..files import ROOT, file_hash, remove, scan_folder, value_hash, write_atomic
from .fingerprint import environment_hashes, parameter_file_hashes
from .locks import RunError, folder_gone_message, is_locked, lock
from .out_of_date import check_replaceable, describe_differences, outdated_stages, outputs_hash
from .record import RecordError, read_record
from .stage_recording import record_stage, stage_name

STAGE_LOCK = ".stage.lock"  # of the process that runs a stage
RECIPE_LOCK = ".recipe.lock"  # of the command that runs all stages
# Errors of the user's input: a new run that one of them ends leaves no folder.
REFUSALS = ("SourceError", "BaseError")


class Run:
    """A run's folder; see the module's docstring. Nothing is written before a stage starts."""

    def __init__(self, folder: str | Path):
        """folder: absolute, or relative to the project."""
        self.folder = ROOT / folder
        self.record = self.folder / "run.json"
        self.cache = self.folder / "cache"
        self.metrics = self.folder / "metrics.jsonl"
        self.usage = self.folder / "usage.jsonl"
        self.checkpoints = self.folder / "checkpoints"
        self.adapter = self.folder / "adapter"
        self.model = self.folder / "model"
        self.samples = self.folder / "samples"
        self.compare = self.folder / "compare"  # with results.json
        self.report = self.folder / "report.html"
        self.log = self.folder / "log.txt"
        self.thumbnail = self.folder / "thumbnail.png"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def cache_store(self) -> Path:
        """The folder of all caches, shared with the runs beside this one."""
        return self.folder.parent / "cache"

    def notebook(self, stage: str) -> Path:
        """Return the path of a stage's executed notebook."""
        # numbered, so that a folder's listing is in the order of the stages
        return self.folder / f"{list(STAGES).index(stage) + 1}_{stage}.ipynb"

    def read(self) -> dict[str, Any]:
        """Return the record; {} before the first stage. Errors: RunError if it is damaged."""
        try:
            return read_record(self.record)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as failure:
            field = f" (its {failure})" if isinstance(failure, RecordError) else ""
            raise RunError(
                f"{self.record} is damaged; remove it and start again: "
                f"the cache and the checkpoints are still used{field}"
            ) from None

    def update(self, **changes: Any):
        """Replace fields of the record, atomically."""
        # read again each time, because a stage and its command both write to it
        record = json.dumps(self.read() | changes, indent=1, ensure_ascii=False)
        write_atomic(self.record, record + "\n")

    def stage_record(self, stage: str) -> dict[str, Any]:
        """Return a stage's entry in the record; {} if it never started."""
        return self.read().get("stages", {}).get(stage, {})

    def update_stage(self, stage: str, **changes: Any):
        """Replace fields of a stage's entry in the record, atomically."""
        stages = self.read().get("stages", {})
        self.update(stages=stages | {stage: stages.get(stage, {}) | changes})

    def require(self, stage: str):
        """Check that an earlier stage is finished and up to date.

        Errors: FileNotFoundError if it is not finished; RunError if its own inputs changed since
        """
        run_again = f"with run = {str(self.folder)!r}, or `onepass run`"
        if self.stage_record(stage).get("status") != "done":
            raise FileNotFoundError(
                f"{self.folder} has no finished {stage} stage; "
                f"run notebooks/{self.notebook(stage).name} {run_again}"
            )
        changed = outdated_stages(self.read()).get(stage)
        if changed:
            # the changed stage may itself be unfinished: then it comes first
            finished = self.stage_record(changed).get("status") == "done"
            notebook = self.notebook(stage if finished else changed).name
            raise RunError(
                f"{self.folder}: its {stage} stage rests on another {changed} than the last one; "
                f"run notebooks/{notebook} again {run_again}"
            )

    def inputs(self, config: Any) -> dict[str, str]:
        """Return the hash of each thing that a stage's result depends on.

        Their names: parameters, those that name a file, code, notebook, versions, base, stages.
        """
        stage = stage_name(config)
        parameters = as_parameters(config)
        record = self.read()
        prepared = record.get("stages", {}).get("prepare", {}).get("parameters", {})
        # training and comparison have no base of their own: they use the prepared one
        base = parameters.get("base") or prepared.get("base")
        # the place of a stage (folder, launcher, hosts) does not change its result
        relevant = {name: value for name, value in parameters.items() if name not in PLACE}
        earlier = list(STAGES)[: list(STAGES).index(stage)]
        return {
            "parameters": value_hash(relevant),
            **parameter_file_hashes(parameters),
            **environment_hashes(stage, self.notebook(stage).name, base),
            **{name: outputs_hash(record, name) for name in earlier},
        }

    def changed(self, config: Any) -> list[str]:
        """Return the names of the inputs and outputs that changed since a stage finished."""
        stage = stage_name(config)
        stage_record = self.stage_record(stage)
        if stage_record.get("status") != "done":
            return ["not done yet"]  # one reason is enough: nothing else is comparable
        before = stage_record.get("inputs", {})
        now = self.inputs(config).items()
        return [name for name, value in now if before.get(name) != value] + self.altered(stage)

    def altered(self, stage: str) -> list[str]:
        """Return the outputs of a stage that are missing or no longer what it wrote."""
        # hashes, not times: a file that was copied back unchanged is unchanged
        altered = []
        for name, digest in self.stage_record(stage).get("outputs", {}).items():
            path = self.folder / name
            if not isfile(path) or file_hash(path) != digest:
                altered.append(str(path.relative_to(self.folder)))
        return altered

    @contextmanager
    def exclusive(self, file: str = STAGE_LOCK, patience: float = 0) -> Iterator[None]:
        """Keep other processes off the run; see `locks.lock`.

        Errors: RunError if another process works on it, and as `check_links`
        """
        self.check_links()
        with lock(self.folder / file, patience):
            yield

    def check_links(self):
        """Check that nothing in the folder leads out of it, before anything is written or removed.

        The run's folder itself may be reached by a link.

        Errors: RunError if an entry at the first two levels is a link; `cache` is one by design
        """
        entries = [entry for entry in scan_folder(self.folder) if entry.name != self.cache.name]
        for folder in list(entries):
            if folder.is_dir(follow_symlinks=False):
                entries += scan_folder(folder.path)
        for entry in entries:
            if entry.is_symlink():
                raise RunError(
                    f"{entry.path} is a link to {os.readlink(entry.path)!r}, and a run writes and "
                    "removes in its own folder alone; put the file or folder itself there, "
                    "or link the whole run or outputs/"
                )

    def require_folder(self):
        """Check that the folder in which a stage works is still there. Errors: RunError."""
        if not self.record.is_file():
            raise RunError(folder_gone_message(self.folder))

    def is_active(self) -> bool:
        """Return True while a process works on the run."""
        return any(is_locked(self.folder / name) for name in (STAGE_LOCK, RECIPE_LOCK))

    @contextmanager
    def stage(self, config: Any) -> Iterator[dict[str, Any]]:
        """Run a stage: keep other processes off the run and record the stage.

        Yields the dict of `record_stage`.

        Errors: RunError if another process works on the run, and as `check_replaceable`
        """
        new = not self.folder.exists()
        self.check_links()  # also before anything is read
        self.check_replaceable(config)
        try:
            with self.exclusive(), record_stage(self, config) as results:
                yield results
        except Exception as failure:
            # by name: importing the errors would import torch
            if new and type(failure).__name__ in REFUSALS:
                remove(self.folder)
            raise

    def check_replaceable(self, config: Any):
        """Check that a stage may replace its earlier result.

        Errors: RunError if it is finished with other parameters, `replace` is off, and no running
        command asks for these parameters
        """
        record = self.read()
        stage = stage_name(config)
        parameters = as_parameters(config)
        requested = record.get("asked", {}).get(stage)
        if requested is not None and is_locked(self.folder / RECIPE_LOCK):
            # the running command itself asks for these parameters
            if not describe_differences(requested, parameters):
                return
        stage_record = record.get("stages", {}).get(stage, {})
        check_replaceable(self.folder, stage, stage_record, parameters)

    def settle(self, stage: str, status: str, **changes: Any):
        """Record how a run ended if its process could not: the run, and a stage still `running`."""
        if self.stage_record(stage).get("status") == "running":
            self.update_stage(stage, status=status, **changes)
        self.update(name=self.name, status=status)
