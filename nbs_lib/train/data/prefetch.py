"""The next batch, copied to the GPU while the present one computes."""

import torch
from torch import Tensor

from .batch import Batch
from .dataset import Examples


class BatchLoader:
    """The batches of a process, on its device.

    A CPU is given each when it is asked for: the copy would compete with the passes.
    """

    def __init__(self, examples: Examples, accelerator, passes: int):
        """Load nothing yet. passes: whose gradients make one optimizer step."""
        self._examples = examples
        self._device = accelerator.device
        self._passes = passes
        self._process = accelerator.process_index
        self._processes = accelerator.num_processes
        self._ready: tuple[tuple[int, int], Batch] | None = None
        self._stream = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)

    def batch(self, step: int, index: int) -> Batch:
        """Return the batch of a pass. step: from 0. index: of the pass in its step, from 0."""
        ready = self._ready
        self._ready = None
        # another one was loaded if a validation or a resumed training came between
        if ready is None or ready[0] != (step, index):
            return self._load(step, index)
        torch.cuda.current_stream().wait_stream(self._stream)
        # the allocator must not give its memory away while the passes read it
        ready[1].map(_record_use)
        return ready[1]

    def load_next(self, step: int, index: int):
        """Begin to copy the batch that follows a pass; on a CPU do nothing."""
        if self._stream is None:
            return
        following = (step, index + 1) if index + 1 < self._passes else (step + 1, 0)
        with torch.cuda.stream(self._stream):
            self._ready = following, self._load(*following)

    def _load(self, step: int, index: int) -> Batch:
        share = index * self._processes + self._process
        batch = self._examples.batch(step, share, self._passes * self._processes)
        if self._stream is None:
            return batch.to(self._device)
        # only pinned memory is copied while the GPU computes; some texts are one row, expanded
        pinned = batch.map(lambda tensor: tensor.contiguous().pin_memory())
        return pinned.to(self._device, non_blocking=True)


def _record_use(tensor: Tensor) -> Tensor:
    tensor.record_stream(torch.cuda.current_stream())
    return tensor
