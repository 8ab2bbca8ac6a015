"""Frozen weights in eight and four bits: their errors, their passes, and a whole training."""

import copy

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn import Conv2d, Linear

from nbs_lib.config import Train
from nbs_lib.config.validation import ParameterError
from nbs_lib.models import find_base
from nbs_lib.models.weights.quantization import (
    BLOCK,
    NF4,
    QuantizedConv2d,
    QuantizedLinear,
    pack,
    quantize,
    unpack,
)
from nbs_lib.train.memory.estimate import LOADING, plan_memory
from nbs_lib.train.networks import build_networks

PRECISIONS = ("int8", "fp8", "nf4")
# Bytes for each weight, with scales of fp32 for each row or block.
BYTES = {"int8": 1, "fp8": 1, "nf4": 0.5 + 4 / BLOCK}
# Root mean square error over that of the weights, of normal numbers.
LARGEST_ERROR = {"int8": 0.015, "fp8": 0.035, "nf4": 0.1}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(48, 128), (48, 64, 3, 3)])
def test_a_packed_weight_is_small_and_near(precision, shape):
    weight = 0.05 * normal(*shape)
    packed, scale = pack(weight, precision)
    restored = unpack(packed, scale, precision, weight.shape, torch.float32)
    size = packed.nbytes + scale.nbytes
    rows = 4 * len(weight) if precision != "nf4" else 0
    assert size == BYTES[precision] * weight.numel() + rows and packed.ndim == weight.ndim
    error = (restored - weight).square().mean().sqrt() / weight.square().mean().sqrt()
    assert 0 < error < LARGEST_ERROR[precision]
    # the format's own levels return, by hand: a row whose largest is 127, 448 or 1 has scale 1
    twice = unpack(*pack(restored, precision), precision, weight.shape, torch.float32)
    torch.testing.assert_close(twice, restored, rtol=0.02, atol=0.02 * float(weight.abs().max()))


def test_levels_by_hand():
    row = torch.zeros(1, BLOCK)
    row[0, :3] = torch.tensor([-127.0, 64.0, 1.0]) / 127
    packed, scale = pack(row, "int8")
    assert packed[0, :4].tolist() == [-126, 64, 1, 0], "the scale is rounded up"
    assert float(scale) == pytest.approx(1 / 127, rel=2**-7)
    packed, _ = pack(row, "nf4")
    # two codes a byte, the first in the upper half; 0 is the eighth level
    assert divmod(int(packed[0, 0]), 16) == (0, 13) and NF4[12] < 64 / 127 < NF4[13]
    assert divmod(int(packed[0, 1]), 16) == (7, 7)


def layers() -> dict[str, torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {
            "linear": Linear(128, 32),
            "plain": Linear(64, 16, bias=False),
            "convolution": Conv2d(64, 32, 3, stride=2, padding=1),
        }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_passes_are_those_of_the_restored_weights(precision):
    for name, layer in layers().items():
        plain = copy.deepcopy(layer)
        quantize(torch.nn.ModuleList([layer]), precision)
        assert type(layer) in (QuantizedLinear, QuantizedConv2d), name
        plain.weight.data = unpack(layer.weight, layer.scale, precision, layer.shape, torch.float32)
        shape = (2, 64, 8, 8) if "conv" in name else (3, 5, layer.in_features)
        ours, theirs = (normal(*shape, seed=1).requires_grad_() for _ in range(2))
        outputs = [layer(ours), plain(theirs)]
        torch.testing.assert_close(*outputs)
        for output in outputs:
            output.square().sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad)
        assert layer.weight.grad is None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_restored_weight_waits_for_the_backward_pass(precision):
    """torchao's weight-only layers save it, and a training would need as much memory as before."""
    layer = Linear(256, 256)
    quantize(torch.nn.ModuleList([layer]), precision)
    saved = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        output = layer(normal(4, 256).requires_grad_())
    assert output.dtype == torch.bfloat16
    floats = [tensor for tensor in saved if tensor.dtype in (torch.float32, torch.bfloat16)]
    assert sum(tensor.numel() for tensor in floats) <= layer.scale.numel() + 4 * 256


@pytest.mark.parametrize("precision", PRECISIONS)
def test_teacher_and_student_share_the_packed_weights(precision, base):
    config = Train(base_precision=precision, mixed_precision="fp32", target_modules="all", rank=2)
    networks = build_networks(base, config)
    assert networks.teacher_denoiser is None
    assert {parameter.dtype for parameter in networks.learned} == {torch.float32}
    wrapped = [
        module for module in networks.denoiser.modules() if isinstance(module, BaseTunerLayer)
    ]
    packed = [layer.get_base_layer() for layer in wrapped]
    assert sum(hasattr(layer, "scale") for layer in packed) > 0.9 * len(packed)
    restored = base.denoiser()
    for name, layer in networks.denoiser.named_modules():
        if isinstance(getattr(layer, "scale", None), torch.Tensor):
            plain = restored.get_submodule(name.removesuffix(".base_layer"))
            packed_pair, shape = pack(plain.weight.data, precision), plain.weight.shape
            plain.weight.data = unpack(*packed_pair, precision, shape, torch.float32)
    config = restored.config
    x = normal(2, config.in_channels, 16, 16)
    context = normal(2, 8, config.cross_attention_dim)
    t = torch.tensor([100, 900])
    with torch.no_grad():
        actual = networks.denoiser.eval()(x, t, context).sample
        torch.testing.assert_close(actual, restored(x, t, context).sample, rtol=1e-3, atol=1e-4)
    loss = networks.denoiser.train()(x, t, context).sample.square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in networks.learned)


@pytest.mark.parametrize("options", [{"method": "dora"}, {"method": "full"}, {"zero_stage": 3}])
def test_weights_that_others_read_stay_as_they_are(options):
    with pytest.raises(ParameterError, match="base_precision|zero_stage"):
        Train(base_precision="int8", **options)


@pytest.mark.slow
def test_a_training_on_packed_weights_and_its_plan(prepared, new_run, train):
    run = new_run(prepared)
    options = {"steps": 2, "batch_size": 2, "validation_steps": 2, "validation_examples": 4}
    options |= {"mixed_precision": "bf16", "num_processes": 2, "zero_stage": 1}
    plans = {
        precision: plan_memory(Train(base_precision=precision, **options), run.cache, 2)
        for precision in ("as_is", *PRECISIONS)
    }
    as_is = plans["as_is"].parts["base"]
    for precision in PRECISIONS:
        share = plans[precision].parts["base"] / as_is
        assert BYTES[precision] / 2 < share < BYTES[precision] / 2 + 0.1
        assert plans[precision].passing[LOADING] == as_is - plans[precision].parts["base"]
    train(Train(str(run.folder), base_precision="nf4", **options))
    record = run.stage_record("train")
    # on the base itself, which a user samples with
    assert record["stock_difference"] < 1e-3
    base = find_base("embedded")
    pipe = base.pipeline()
    pipe.load_lora_weights(run.adapter)
    assert record["memory"]["planned_mib"]["base"] == pytest.approx(
        plans["nf4"].parts["base"] / 2**20, abs=0.1
    )
