"""Models and tensors without content, and how much memory the operations on them would take."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import finalize

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


def fake(model: torch.nn.Module, mode: Any):
    """Put fake tensors, which operations may ask for their device, in the place of what a model on the meta device holds."""
    for module in model.modules():
        for name, each in module._parameters.items():
            if each is not None:
                module._parameters[name] = torch.nn.Parameter(
                    to_fake(each.data, mode), requires_grad=each.requires_grad
                )
        for name, each in module._buffers.items():
            if each is not None:
                module._buffers[name] = to_fake(each, mode)


def to_fake(tensor: torch.Tensor, mode: Any) -> torch.Tensor:
    """A tensor without content, on the CPU as far as operations see. mode: torch's FakeTensorMode."""
    from torch._subclasses.fake_tensor import FakeTensor

    return FakeTensor(mode, tensor.to("meta"), torch.device("cpu"))


class LiveMemoryTracker(TorchDispatchMode):
    """Counts the storages that operations make, from when they are made to when nothing holds them any more.

    Source: torch.distributed._tools.mem_tracker, which does so by module.
    """

    def __init__(self, known: list[torch.Tensor]):
        """known: tensors that are there already and are not counted."""
        super().__init__()
        self.live = self.peak = 0
        self._known = {each.untyped_storage()._cdata for each in known}

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ):
        made = func(*args, **kwargs or {})
        for each in tree_leaves(made):
            if (
                isinstance(each, torch.Tensor)
                and (storage := each.untyped_storage())._cdata not in self._known
            ):
                self._known.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return made

    def _gone(self, key: int, nbytes: int):
        self._known.discard(key)
        self.live -= nbytes


@contextmanager
def norms_in_fp32() -> Iterator[None]:
    """Norms as a GPU's autocast has them, in fp32; a CPU's leaves them in their input's type.

    Replaced by name: a mode of torch's would not see what gradient checkpointing computes again.
    """

    def in_fp32(norm: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any):
            return norm(*tree_map_only(torch.Tensor, torch.Tensor.float, args), **kwargs)

        return call

    with ExitStack() as replaced:
        for name in ("group_norm", "layer_norm"):
            norm = getattr(torch.nn.functional, name)
            replaced.callback(setattr, torch.nn.functional, name, norm)
            setattr(torch.nn.functional, name, in_fp32(norm))
        yield
