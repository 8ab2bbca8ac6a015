"""A run: one folder with fixed file names, and the record of what was asked and what happened.

outputs/NAME/
  run.json                 the record, see `Run.stage`
  1_prepare.ipynb, .html …   executed notebooks, and each as a page
  cache -> ../cache/KEY    latents and text embeddings, shared between runs
  prepare/                 kept.parquet and dropped.parquet: what is used, what is not and why; figures of both
  metrics.jsonl            a line for each logged step
  usage.jsonl              a line for each second: CPU, memory, GPUs; and one for each stage of the training
  loss.png, usage.png      their curves
  checkpoints/step-N/      adapter and optimizer
  validation/, validation.png   pictures during the training
  adapter/                 the LoRA and its card, or
  model/                   the whole pipeline and its card, where all weights are trained
  samples/                 every picture that was compared, with how it was made in it
  compare/                 pictures, results.json
  report.html              one self-contained page
  gallery/, votes.jsonl    what was saved and voted on in the playground
  export/TO/               the adapter for other programs, see `export`
  log.txt                  what the command and its notebooks said, of every try
  thumbnail.png            a picture for the index of runs
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from os.path import isfile
from pathlib import Path
from typing import Any

from ..config import PLACE, STAGES
from ..config.validation import as_parameters
from ..files import ROOT, file_hash, remove, scan_folder, value_hash, write_atomic
from .disk_space import explain_shortage
from .environment import environment, versions
from .fingerprint import code_hash, shipped_base_hash
from .locks import RunError, is_locked, lock, process_is_gone
from .out_of_date import (
    check_replaceable,
    differing_parameters,
    mark_report,
    outdated_stages,
    outputs_hash,
)
from .record import RecordError, read_record

NOTEBOOKS = ROOT / "notebooks"
STAGE_LOCK, RECIPE_LOCK = ".stage.lock", ".recipe.lock"
"""Held by the process that does a stage, and by the command that goes through all of them."""
REFUSALS = ("SourceError", "BaseError")
"""Errors of what was given: a run that one of them ends before it came to anything leaves no folder."""
SPACE = 1 << 17
"""Bytes that are kept while a stage works, so that its record can say how it ended on a disk that became full."""


def notebook_hash(path: Path) -> str:
    """Hash of a notebook's code, without its parameters, whose values are an input of their own. Errors: RunError."""
    try:
        cells = [
            cell for cell in json.loads(path.read_bytes())["cells"] if cell["cell_type"] == "code"
        ]
        return value_hash(
            [
                "".join(cell["source"])
                for cell in cells
                if "parameters" not in cell["metadata"].get("tags", [])
            ]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
        raise RunError(
            f"{path} is missing or no notebook; put it back with `git checkout notebooks`"
        ) from failure


class Run:
    """A run's folder; see the module's docstring for what is in it. Nothing is written before a stage begins."""

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
        self.compare = self.folder / "compare"
        self.report = self.folder / "report.html"
        self.log = self.folder / "log.txt"
        self.thumbnail = self.folder / "thumbnail.png"

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def cache_store(self) -> Path:
        """Where the caches of this run and its neighbours are."""
        return self.folder.parent / "cache"

    def notebook(self, stage: str) -> Path:
        """The executed notebook of a stage."""
        return self.folder / f"{list(STAGES).index(stage) + 1}_{stage}.ipynb"

    def read(self) -> dict[str, Any]:
        """The record; a run that never began has an empty one. Errors: RunError for a damaged one."""
        try:
            return read_record(self.record)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as failure:
            where = f" (its {failure})" if isinstance(failure, RecordError) else ""
            raise RunError(
                f"{self.record} is damaged; remove it and start again: the cache and the checkpoints are still used{where}"
            ) from None

    def update(self, **changes: Any):
        """Replace parts of the record, atomically."""
        write_atomic(
            self.record, json.dumps(self.read() | changes, indent=1, ensure_ascii=False) + "\n"
        )

    def stage_record(self, stage: str) -> dict[str, Any]:
        return self.read().get("stages", {}).get(stage, {})

    def update_stage(self, stage: str, **changes: Any):
        stages = self.read().get("stages", {})
        self.update(stages=stages | {stage: stages.get(stage, {}) | changes})

    def require(self, stage: str):
        """Errors: FileNotFoundError where an earlier stage has not been done, RunError where what it rests on has been done
        anew since; both say what to do."""
        done = self.stage_record(stage)
        how = f"with run = {str(self.folder)!r}, or `onepass run`"
        if done.get("status") != "done":
            raise FileNotFoundError(
                f"{self.folder} has no finished {stage} stage; run notebooks/{self.notebook(stage).name} {how}"
            )
        if before := outdated_stages(self.read()).get(stage):
            again = stage if self.stage_record(before).get("status") == "done" else before
            raise RunError(
                f"{self.folder}: its {stage} stage rests on another {before} than the last one; "
                f"run notebooks/{self.notebook(again).name} again {how}"
            )

    def inputs(self, config: Any) -> dict[str, str]:
        """What a stage's result depends on, each as a hash: parameters, code, versions, the base, the outputs before it."""
        stage, order = stage_name(config), list(STAGES)
        parameters = as_parameters(config)
        base = parameters.get("base") or self.stage_record("prepare").get("parameters", {}).get(
            "base"
        )
        hashes = {
            "parameters": value_hash(
                {name: value for name, value in parameters.items() if name not in PLACE}
            ),
            "code": code_hash(stage, "picturebook"),
            "notebook": notebook_hash(NOTEBOOKS / self.notebook(stage).name),
            "versions": value_hash(versions()),
        }
        # what training reads of the base is in the outputs of prepare; the judge beside it is none of its business
        if base == "embedded" and stage != "train":
            hashes["base"] = shipped_base_hash()
        return hashes | {
            before: self._outputs_hash(before) for before in order[: order.index(stage)]
        }

    def _outputs_hash(self, stage: str) -> str:
        return outputs_hash(self.read(), stage)

    def changed(self, config: Any) -> list[str]:
        """Why a stage must be done (again): the names of what changed; empty if it is done and still holds."""
        done = self.stage_record(stage_name(config))
        if done.get("status") != "done":
            return ["not done yet"]
        now, before = self.inputs(config), done.get("inputs", {})
        reasons = [name for name, value in now.items() if before.get(name) != value]
        return reasons + self.altered(stage_name(config))

    def altered(self, stage: str) -> list[str]:
        """The outputs of a stage that are missing, or are no longer what it wrote."""
        outputs = {
            self.folder / name: digest
            for name, digest in self.stage_record(stage).get("outputs", {}).items()
        }
        found = [
            path
            for path, digest in outputs.items()
            if not isfile(path) or file_hash(path) != digest
        ]
        return [str(path.relative_to(self.folder)) for path in found]

    @contextmanager
    def exclusive(self, file: str = STAGE_LOCK, patience: float = 0) -> Iterator[None]:
        """Keep other processes off the run; see `locks.held`. Errors: RunError where another process is at work on it, and as
        of `refuse_links`."""
        self.check_links()
        with lock(self.folder / file, patience):
            yield

    def check_links(self):
        """Check that nothing in the folder leads out of it, before anything is written or removed there.

        The folder itself may be reached by a link, and `cache` is one. Errors: RunError where anything else is a link.
        """
        own = [each for each in scan_folder(self.folder) if each.name != self.cache.name]
        inner = [
            each
            for folder in own
            if folder.is_dir(follow_symlinks=False)
            for each in scan_folder(folder.path)
        ]
        for each in (*own, *inner):
            if each.is_symlink():
                raise RunError(
                    f"{each.path} is a link to {os.readlink(each.path)!r}, and a run writes and removes in its own folder "
                    "alone; put the file or folder itself there, or link the whole run or outputs/"
                )

    def require_folder(self):
        """Errors: RunError where the folder, in which a stage works, is no longer what it was."""
        if not self.record.is_file():
            raise RunError(process_is_gone(self.folder))

    def is_active(self) -> bool:
        """Whether a process works on the run."""
        return any(is_locked(self.folder / lock) for lock in (STAGE_LOCK, RECIPE_LOCK))

    @contextmanager
    def stage(self, config: Any) -> Iterator[dict[str, Any]]:
        """Keep the record of a stage while it runs, and other processes off the run.

        Written when the stage begins (status running), and when it ends: done, failed (with the error) or interrupted.
        Yields a dict: `outputs` takes the paths, relative to the run, whose hashes later stages rest on; every other key
        is recorded as it is. Errors: RunError where another process works on the run.
        """
        fresh = not self.folder.exists()
        self.check_links()  # before anything is read of it, too
        self.check_replaceable(config)
        try:
            with self.exclusive(), self._recorded(config) as told:
                yield told
        except Exception as failure:
            if fresh and type(failure).__name__ in REFUSALS:
                remove(self.folder)
            raise

    def check_replaceable(self, config: Any):
        """Errors: RunError where a finished stage of other parameters would be replaced, and neither `replace` nor a command
        that is at work on the run asks for it."""
        record, stage, parameters = self.read(), stage_name(config), as_parameters(config)
        asked = record.get("asked", {}).get(stage)
        if (
            asked is not None
            and is_locked(self.folder / RECIPE_LOCK)
            and not differing_parameters(asked, parameters)
        ):
            return
        check_replaceable(self.folder, stage, record.get("stages", {}).get(stage, {}), parameters)

    @contextmanager
    def _recorded(self, config: Any) -> Iterator[dict[str, Any]]:
        stage, start = stage_name(config), time.perf_counter()
        known = environment()
        begun = {
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": as_parameters(config),
            "inputs": self.inputs(config),
            **known,
        }
        record = self.read()
        self.update(
            **known,
            name=self.name,
            status="running",
            stages=record.get("stages", {}) | {stage: begun},
        )
        told: dict[str, Any] = {"outputs": []}
        status, error, space = "interrupted", None, self.folder / ".space"
        try:
            space.write_bytes(bytes(SPACE))
            yield told
            told["outputs"] = {str(name): file_hash(self.folder / name) for name in told["outputs"]}
            status = "done"
        except Exception as failure:
            status, error = (
                "failed",
                f"{type(failure).__name__}: {failure}{explain_shortage(failure, self.folder)}",
            )
            raise
        finally:
            self.require_folder()  # or a new one would be made here, with nothing but the end of this stage
            space.unlink(missing_ok=True)
            if status != "done":
                told = {"error": error} if error else {}
            self.update_stage(
                stage, **told, status=status, seconds=round(time.perf_counter() - start, 1)
            )
            last = stage == list(STAGES)[-1]
            self.update(status=("done" if last else "running") if status == "done" else status)
            mark_report(self.report, self.read())

    def settle(self, stage: str, status: str, **told: Any):
        """Record how a run ended whose stage could not; and of the stage, where it is still said to be running."""
        if self.stage_record(stage).get("status") == "running":
            self.update_stage(stage, status=status, **told)
        self.update(name=self.name, status=status)


def stage_name(config: Any) -> str:
    return next(stage for stage, cls in STAGES.items() if isinstance(config, cls))
