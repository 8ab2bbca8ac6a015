"""Operations of a training step at SD 2.1's true topology, counted without a GPU.

    python benchmarks/operations.py     # or a part of: make bench-train

A step is the forward and the backward pass of guidance distillation by a LoRA in bf16. Eagerly it
runs on tensors without numbers, at the true size: every operation that would launch a kernel is
counted, with the bytes that it reads and writes, and those that only copy numbers to another type.
Views are free. The steps of earlier commits stand beside it, counted in the same way in a work tree
of each, with the norms of a GPU's autocast.

Compiled it runs on a thin UNet of the same topology, by torch's compiler up to the graphs that its
backend is given, which are run as they are. A graph counts as one launch, as a CUDA graph would.
The figures go to benchmarks/results/operations.json.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import page
import torch
from sizes import TRUE_SIZE
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from nbs_lib.config import Train
from nbs_lib.models import NoiseSchedule, find_base
from nbs_lib.models.weights.fake_tensors import fake_model, to_fake
from nbs_lib.run.environment import environment
from nbs_lib.train.data.batch import Batch
from nbs_lib.train.networks import build_networks, choose_attention
from nbs_lib.train.objectives import guidance
from nbs_lib.train.student import Student

BATCH = 8
THIN = TRUE_SIZE | {
    "sample_size": 16,
    "block_out_channels": (32, 64, 128, 128),
    "attention_head_dim": [1, 2, 4, 4],
    "cross_attention_dim": 32,
}
"""SD 2.1's topology with a tenth of its channels."""
# Operations that launch nothing, beside the views.
FREE = ("empty", "new_empty", "detach", "alias", "lift", "_unsafe_view")
COPIES = ("_to_copy", "copy_")
BEFORE = {
    "1002a5e": {
        "live": {"operations": 5447, "dtype_copies": 2046, "gib": 168.7},
        "cached": {"operations": 4198, "dtype_copies": 1542, "gib": 104.0},
    },
    "73aaa02": {
        "live": {"operations": 5239, "dtype_copies": 1824, "gib": 164.2},
        "cached": {"operations": 4021, "dtype_copies": 1351, "gib": 99.6},
    },
}
"""The same counts at earlier commits, whose modules have other names.

They are those of a LoRA of rank 16 on the attention layers too, the default of today.
"""


class OperationCounter(TorchDispatchMode):
    """A counter of operations, of those that copy to another type, and of bytes."""

    def __init__(self):
        super().__init__()
        self.operations = self.dtype_copies = self.bytes = 0

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Return True: compiled code stays compiled while its surroundings are counted."""
        return True

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ):
        result = func(*args, **kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        free = func.is_view or func.namespace != "aten" or name.startswith(FREE)
        if not free:
            inputs = _tensors((args, kwargs))
            outputs = _tensors(result)
            self.operations += 1
            self.bytes += sum(tensor.nbytes for tensor in inputs + outputs)
            types_of_copy = {tensor.dtype for tensor in inputs + outputs}
            self.dtype_copies += name in COPIES and len(types_of_copy) > 1
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def main():
    eager = {teacher: count_eager(teacher) for teacher in ("live", "cached")}
    compiled = {teacher: count_compiled(teacher) for teacher in ("live", "cached")}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        **environment(),
        "batch": BATCH,
        "before": BEFORE,
        "eager": eager,
        "compiled": compiled,
    }
    page.save("operations", result)


def build_student(settings: dict[str, Any], make: Callable) -> Student:
    """Return a student in bf16 as a GPU has it.

    settings: of the UNet.
    make: gives a UNet on the meta device tensors that operations can work on.
    """
    config = Train(mixed_precision="bf16")
    networks = build_networks(SimpleNamespace(denoiser=partial(meta_unet, settings)), config)
    make(networks.denoiser)
    choose_attention(networks.denoiser, torch.bfloat16, "cuda")
    schedule = NoiseSchedule.diffusion(torch.linspace(0.999, 0.005, 1000), "epsilon")
    # any base of SD 1.x or 2.x calls a UNet alike
    return Student(networks.denoiser, schedule, find_base("embedded").predict, torch.bfloat16)


def meta_unet(settings: dict[str, Any], dtype: torch.dtype):
    """Return a frozen UNet on the meta device."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**settings).to(dtype).requires_grad_(False)


def random_batch(settings: dict[str, Any], teacher: str, n: int) -> Batch:
    """Return a batch of random numbers, with cached answers unless the teacher is live."""
    side = settings["sample_size"]
    x = torch.randn(4, n, 4, side, side)
    text = torch.randn(2, n, 77, settings["cross_attention_dim"])
    t = torch.randint(0, 1000, (n,))
    ones = torch.ones(n)
    answers = (x[2], x[3]) if teacher == "cached" else None
    return Batch(x[0], x[1], t, text[0], text[1], 7.5 * ones, ones, t, answers)


def step(student: Student, batch: Batch):
    """Take the forward and the backward pass of a step."""
    losses = guidance(student, student, batch, Train())
    (losses * batch.weight).mean().backward()


def count_eager(teacher: str) -> dict[str, float]:
    """Return the counts of a step at the true size, on tensors without numbers."""
    mode = FakeTensorMode()
    student = build_student(TRUE_SIZE, partial(fake_model, mode=mode))
    levels = (to_fake(level, mode) for level in (student.schedule.alphas, student.schedule.sigmas))
    student.schedule = NoiseSchedule(*levels, student.schedule.prediction_type)
    batch = random_batch(TRUE_SIZE, teacher, BATCH).map(lambda tensor: to_fake(tensor, mode))
    with mode, OperationCounter() as counter:
        step(student, batch)
    figures = {
        "operations": counter.operations,
        "dtype_copies": counter.dtype_copies,
        "gib": counter.bytes / 2**30,
    }
    print(f"{teacher}, eager: {figures}", flush=True)
    return figures


def count_compiled(teacher: str) -> dict[str, int]:
    """Return the counts of a compiled step of the thin UNet, after two steps that compile."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    student = build_student(THIN, fill)
    compiler = GraphCounter()
    backend = aot_autograd(fw_compiler=compiler, bw_compiler=compiler)
    student.denoiser.compile(backend=backend, dynamic=False)
    batch = random_batch(THIN, teacher, 2)
    for _ in range(2):
        step(student, batch)
    statistics = torch._dynamo.utils.counters
    compiled = statistics["stats"]["unique_graphs"]
    compiler.launches = 0
    with OperationCounter() as compiler.outside:
        step(student, batch)
    figures = {
        "graphs": compiler.launches,
        "operations": compiler.launches + compiler.outside.operations,
        "graph_breaks": sum(statistics["graph_break"].values()),
        "recompiles": statistics["stats"]["unique_graphs"] - compiled,
    }
    print(f"{teacher}, compiled whole: {figures}", flush=True)
    return figures


def fill(unet: torch.nn.Module):
    """Give a UNet on the meta device small random weights."""
    for module in unet.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                weight = 0.05 * torch.randn(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = torch.nn.Parameter(weight, parameter.requires_grad)


class GraphCounter:
    """A compiler that leaves a graph as it is, and counts how often graphs are run.

    outside: the counter of the operations around the graphs.
    """

    def __init__(self):
        self.launches = 0
        self.outside: OperationCounter | None = None

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        def run(*arguments: Tensor) -> Any:
            self.launches += 1
            with _disable_current_modes():
                return graph(*arguments)

        return make_boxed_func(run)


if __name__ == "__main__":
    main()
