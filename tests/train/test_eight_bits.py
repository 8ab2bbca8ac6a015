"""AdamW in eight bits against AdamW: its steps, the bytes that it keeps, and how it is loaded."""

import sys
from itertools import chain

import pytest
import torch
from torch import Tensor

from nbs_lib.config import Train
from nbs_lib.config.validation import ParameterError
from nbs_lib.models import find_base
from nbs_lib.train.memory.dry_run import DryRunSizes
from nbs_lib.train.memory.estimate import optimizer_bytes
from nbs_lib.train.networks import Networks, build_networks
from nbs_lib.train.setup import MIN_8BIT_SIZE, new_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 8


def trained(base, optimizer: str) -> tuple[list[float], Networks, torch.optim.Optimizer]:
    """Return the losses of a LoRA that learns one answer, its networks and its optimizer."""
    # a part of its weights is in tensors that are large enough
    config = Train(optimizer=optimizer, rank=64, alpha=64.0, mixed_precision="fp32")
    networks = build_networks(base, config)
    shape = networks.denoiser.config
    generator = torch.Generator().manual_seed(0)
    x_t, answer = torch.randn(
        2, 2, 4, shape.sample_size, shape.sample_size, generator=generator
    ).unbind()
    context = torch.randn(2, 7, shape.cross_attention_dim, generator=generator)
    optimizer = new_optimizer(networks, config)
    losses = []
    for _ in range(STEPS):
        predicted = networks.denoiser(x_t, torch.tensor([100, 700]), context).sample
        loss = (predicted - answer).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, networks, optimizer


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory):
    """The smallest base."""
    return find_base(str(tiny_base("sd1", tmp_path_factory.mktemp("base") / "base")))


@pytest.fixture(scope="module")
def both(base):
    """Yield the same training with AdamW and with AdamW in eight bits."""
    yield {name: trained(base, name) for name in ("adamw", "adamw_8bit")}
    # accelerate forks no process that has it, and other tests of this one may launch
    del sys.modules["bitsandbytes"]


def state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the tensors of an optimizer's state, a shared one once."""
    values = chain.from_iterable(state.values() for state in optimizer.state.values())
    tensors = [value for value in values if isinstance(value, Tensor)]
    return list({tensor.data_ptr(): tensor for tensor in tensors}.values())


def test_the_losses_are_those_of_adamw_within_a_hundredth_of_what_is_learned(both):
    plain, eight = both["adamw"][0], both["adamw_8bit"][0]
    learned = plain[0] - plain[-1]
    assert learned > 0.02 * plain[0], "so that there is something to compare"
    assert eight == pytest.approx(plain, abs=0.01 * learned)
    assert eight[0] == plain[0] and eight[-1] != plain[-1], "its means are rounded"


def test_the_means_of_large_tensors_are_bytes_and_the_plan_knows_them(both):
    _, networks, optimizer = both["adamw_8bit"]
    large = [p for p in networks.parameters if p.numel() >= MIN_8BIT_SIZE]
    counts = [sum(p.numel() for p in some) for some in (large, networks.parameters)]
    assert 0 < counts[0] < counts[1]
    tensors = state_tensors(optimizer)
    in_bytes = [tensor for tensor in tensors if tensor.dtype == torch.uint8]
    assert sum(tensor.numel() for tensor in in_bytes) == 2 * counts[0]
    sizes = DryRunSizes(
        resident=0,
        examples=0,
        frozen=0,
        trained=counts[1],
        learned=counts[1],
        in_small_tensors=counts[1] - counts[0],
        layers=0,
        denoiser=0,
        activations=0,
        decoding=0,
    )
    measured = sum(tensor.nbytes for tensor in tensors)
    # beside them two tables of 256 numbers, which all tensors share
    assert optimizer_bytes("adamw_8bit", sizes, stage=0) == measured - 2 * 4 * 256
    plain = sum(tensor.nbytes for tensor in state_tensors(both["adamw"][2]))
    # and AdamW counts its steps in tensors
    assert optimizer_bytes("adamw", sizes, stage=0) == plain - 4 * len(networks.parameters)


def test_offload_is_for_adamw_alone():
    with pytest.raises(ParameterError, match="zero_stage 1, 2 or 3, and adamw"):
        Train(optimizer="adamw_8bit", zero_stage=2, offload=True)
    assert Train(optimizer="adamw_8bit").learning_rate == Train().learning_rate


def test_only_the_optimizer_loads_bitsandbytes(python):
    """Its import asks CUDA, after which no process can be forked that uses a GPU."""
    source = """
import sys
from nbs_lib.config import Train
from nbs_lib.launch.preflight import check_machine
from nbs_lib.models import find_base
from nbs_lib.train.networks import build_networks
from nbs_lib.train.setup import new_optimizer
config = Train(optimizer="adamw_8bit", mixed_precision="fp32", launcher="subprocess")
check_machine(config)
networks = build_networks(find_base("embedded"), config)
assert "bitsandbytes" not in sys.modules
print(type(new_optimizer(networks, config)).__module__)
"""
    done = python(source)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "bitsandbytes.optim.adamw\n" and done.stderr == ""


def test_a_missing_package_is_refused_before_the_launch(python):
    source = (
        "import sys\n"
        "from nbs_lib.config import Train\n"
        "from nbs_lib.launch.preflight import check_machine\n"
        "sys.path = [path for path in sys.path if 'site-packages' not in path]\n"
        "check_machine(Train(optimizer='adamw_8bit'))"
    )
    error = python(source).stderr
    assert "LaunchError: package bitsandbytes is not installed" in error
    assert "pip install -e '.[bitsandbytes]'" in error
