"""A stage's entry in run.json, from its start to its end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ..config import STAGES
from ..config.validation import as_parameters
from ..files import file_hash
from .disk_space import explain_shortage
from .environment import environment
from .out_of_date import mark_report

RESERVED_SIZE = 1 << 17  # bytes; a record has a few thousand


def stage_name(config: Any) -> str:
    """Return the stage that a configuration belongs to."""
    return next(stage for stage, cls in STAGES.items() if isinstance(config, cls))


@contextmanager
def record_stage(run, config: Any) -> Iterator[dict[str, Any]]:
    """Record a stage as running, and at the end as done, failed or interrupted.

    Yields a dict: `outputs` takes paths relative to the run, whose hashes later stages depend on;
    every other key is recorded as it is.

    run: a Run, whose class imports this module
    """
    stage = stage_name(config)
    start = time.perf_counter()
    _record_start(run, stage, config)
    results: dict[str, Any] = {"outputs": []}
    ending: dict[str, Any] = {"status": "interrupted"}
    # a stage may fill the disk: this file's space is freed for the record's last update
    reserve = run.folder / ".space"
    try:
        reserve.write_bytes(bytes(RESERVED_SIZE))
        yield results
        outputs = results["outputs"]
        results["outputs"] = {str(name): file_hash(run.folder / name) for name in outputs}
        ending = results | {"status": "done"}
    except Exception as failure:
        # explained before the reserve is removed, which frees an inode
        error = f"{type(failure).__name__}: {failure}{explain_shortage(failure, run.folder)}"
        ending = {"status": "failed", "error": error}
        raise
    finally:
        # or the next write would create a new folder that holds only the end of this stage
        run.require_folder()
        reserve.unlink(missing_ok=True)
        _record_end(run, stage, ending | {"seconds": round(time.perf_counter() - start, 1)})


def _record_start(run, stage: str, config: Any):
    # recorded with each stage, because stages may run on different machines
    facts = environment()
    entry = {
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": as_parameters(config),
        "inputs": run.inputs(config),
        **facts,
    }
    stages = run.read().get("stages", {}) | {stage: entry}
    run.update(**facts, name=run.name, status="running", stages=stages)


def _record_end(run, stage: str, ending: dict[str, Any]):
    run.update_stage(stage, **ending)
    # the run is finished only after its last stage
    more_to_come = ending["status"] == "done" and stage != list(STAGES)[-1]
    run.update(status="running" if more_to_come else ending["status"])
    mark_report(run.report, run.read())
