"""A copy of a GPU's numbers on the CPU that nobody waits for."""

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor in the CPU's memory, begun when it is created."""

    def __init__(self, tensor: Tensor):
        """Begin the copy. tensor: stays unchanged until `result` was called."""
        self._event = None
        self._copy = tensor
        if tensor.is_cuda:
            # only into pinned memory a GPU copies without making the CPU wait
            self._copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._copy.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def result(self) -> Tensor:
        """Return the copy, when it is there."""
        if self._event:
            self._event.synchronize()
        return self._copy
