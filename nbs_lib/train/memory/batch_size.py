"""The largest batch that the memory plan allows, for a training that leaves it open (0)."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from ...config import Train
from ..data.dataset import Examples
from .estimate import plan_memory

# Share of the free memory that is planned with: the allocator of a GPU leaves gaps, and others may
# use it too.
ROOM_SHARE = 0.9
# Larger batches are multiples of this, as the units that multiply matrices want.
MULTIPLE = 8
LARGEST = 4096  # that the parameter allows


def largest_batch(config: Train, cache: Path, processes: int) -> int:
    """Return the largest batch that fits, 1 at least.

    It is no larger than the training examples for each process and pass.
    processes: on this host.
    Errors: RuntimeError if no plan can be made.
    """
    share = processes * config.num_nodes * config.gradient_accumulation_steps
    n_training = len(Examples(cache, replace(config, batch_size=1)).training)
    limit = max(1, min(LARGEST, n_training // share))
    fits = partial(_fits, config, cache, processes)
    largest = 1
    too_large = 2
    while too_large <= limit and fits(too_large):
        largest, too_large = too_large, 2 * too_large
    too_large = min(too_large, limit + 1)
    # a plan takes seconds, so it is not asked for every number
    step = 1 if largest < MULTIPLE else MULTIPLE
    while too_large - largest > step:
        middle = largest + (too_large - largest) // 2 // step * step
        if fits(middle):
            largest = middle
        else:
            too_large = middle
    return largest


def _fits(config: Train, cache: Path, processes: int, n: int) -> bool:
    plan = plan_memory(replace(config, batch_size=n), cache, processes)
    return plan.needed <= ROOM_SHARE * plan.room
