"""A further host, which waits for host 0: it alone keeps the record of a run."""

import time
from typing import Any

from ..run.run import Run
from .errors import COLLECTIVE_TIMEOUT, NOUNS, LaunchError

POLL = 0.5  # seconds between two looks at host 0's record


def await_start(run: Run, stage: str):
    """Wait until host 0 runs a stage. Errors: LaunchError if it ends before, or does not start."""
    before = run.read()
    # it may do another stage first
    end = time.monotonic() + COLLECTIVE_TIMEOUT.total_seconds()
    while True:
        record = run.read()
        if record.get("stages", {}).get(stage, {}).get("status") == "running":
            return
        if record != before and record.get("status") in ("failed", "interrupted"):
            raise LaunchError(f"host 0 did not come to its {NOUNS[stage]}; {run.log} says why")
        if time.monotonic() > end:
            raise LaunchError(
                f"host 0 was not met in {COLLECTIVE_TIMEOUT}; start the same command there"
            )
        time.sleep(POLL)


def await_end(run: Run, stage: str) -> dict[str, Any]:
    """Return host 0's record of a stage when it is done.

    Errors: LaunchError if it failed, or if host 0 has ended without a word.
    """
    active = True
    while (record := run.stage_record(stage)).get("status") == "running" and active:
        time.sleep(POLL)
        # a killed host leaves its record as it was; it is read once more, because a host that ends
        # gives up the lock after its last entry
        active = run.is_active()
    if record.get("status") != "done":
        reason = record.get("error", "it was interrupted or killed")
        raise LaunchError(f"host 0 did not come to its end: {reason}")
    return record
