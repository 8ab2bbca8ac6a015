"""The largest batch that the memory plan allows, for a training that leaves it open (0)."""

from dataclasses import replace
from pathlib import Path

from ...config import Train
from ..data.dataset import Examples
from .estimate import MemoryPlan, plan_memory

# Share of the free memory that is planned with: the allocator of a GPU leaves gaps, and others may
# use it too.
ROOM_SHARE = 0.9
# Larger batches are multiples of this, as the units that multiply matrices want.
MULTIPLE = 8


def largest_batch(config: Train, cache: Path, processes: int) -> int:
    """Return the largest batch that fits, 1 at least.

    It is no larger than the training examples for each process and pass.
    processes: on this host.
    Errors: RuntimeError if no plan can be made.
    """
    share = processes * config.num_nodes * config.gradient_accumulation_steps
    limit = max(1, len(Examples(cache, replace(config, batch_size=1)).training) // share)
    one, two = (plan_memory(replace(config, batch_size=n), cache, processes) for n in (1, 2))
    # activations grow evenly with the batch, and nothing else does
    each = max(1, two.needed - one.needed)
    n = _round(max(1, min(limit, 1 + int((ROOM_SHARE * one.room - one.needed) // each))))
    # a part that hid behind a larger one may grow faster
    while n > 1 and not _fits(plan_memory(replace(config, batch_size=n), cache, processes)):
        n = _round(3 * n // 4)
    return n


def _fits(plan: MemoryPlan) -> bool:
    return plan.needed <= ROOM_SHARE * plan.room


def _round(n: int) -> int:
    return n if n < MULTIPLE else n // MULTIPLE * MULTIPLE
