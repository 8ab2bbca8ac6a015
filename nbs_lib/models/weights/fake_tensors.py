"""Models and tensors without numbers, and the memory that operations on them would take."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


def fake_model(model: torch.nn.Module, mode: FakeTensorMode):
    """Replace the tensors of a model on the meta device by fake ones, which have a device."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                data = to_fake(parameter.data, mode)
                module._parameters[name] = torch.nn.Parameter(data, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = to_fake(buffer, mode)


def to_fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """Return a tensor without numbers that operations take for one on the CPU."""
    return FakeTensor(mode, tensor.to("meta"), torch.device("cpu"))


class LiveMemoryTracker(TorchDispatchMode):
    """A counter of the storages that operations make, as long as something holds them.

    Source: torch.distributed._tools.mem_tracker, which does so by module.
    """

    def __init__(self, existing: list[Tensor]):
        """Count from zero. existing: tensors that are not counted."""
        super().__init__()
        self.live = self.peak = 0  # bytes
        self._seen_storages = {tensor.untyped_storage()._cdata for tensor in existing}

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ):
        result = func(*args, **kwargs or {})
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage):
        key = storage._cdata
        if key in self._seen_storages:
            return
        self._seen_storages.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        # called when nothing holds the storage any more
        finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, nbytes: int):
        self._seen_storages.discard(key)
        self.live -= nbytes


@contextmanager
def norms_in_fp32() -> Iterator[None]:
    """Compute norms in fp32, as a GPU's autocast does; a CPU's keeps their input's type."""
    # replaced by name: gradient checkpointing computes again outside of a torch mode
    with ExitStack() as restored:
        for name in ("group_norm", "layer_norm"):
            norm = getattr(torch.nn.functional, name)
            restored.callback(setattr, torch.nn.functional, name, norm)
            setattr(torch.nn.functional, name, _in_fp32(norm))
        yield


def _in_fp32(function: Callable) -> Callable:
    def call(*args: Any, **kwargs: Any):
        return function(*tree_map_only(Tensor, Tensor.float, args), **kwargs)

    return call
