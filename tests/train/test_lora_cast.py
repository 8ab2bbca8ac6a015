"""A LoRA's own passes against peft's: the same numbers, fewer casts, fp16 with a loss scale."""

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nbs_lib.config import Train
from nbs_lib.models import find_base
from nbs_lib.models.lora.layers import add_lora, disable_lora, lora_layers
from nbs_lib.train.lora_cast import CastWeights, LossScale, replace_lora_passes
from nbs_lib.train.networks import DTYPES, PlainAttention, build_networks, choose_attention
from nbs_lib.train.student import Student

pytestmark = pytest.mark.usefixtures("one_thread")

LORAS = [
    {},
    {"method": "rslora", "alpha": 3.0},
    {"targets": "all"},
]


@pytest.fixture(scope="module")
def tiny(tiny_base, tmp_path_factory):
    """The smallest base."""
    return find_base(str(tiny_base("sd1", tmp_path_factory.mktemp("base") / "base")))


def new_student(base, dtype: torch.dtype, own: bool = True, **options) -> Student:
    """Return a student with a LoRA that changes its predictions. own: not by peft's passes."""
    unet = base.denoiser(dtype)
    parameters = add_lora(unet, **{"rank": 2, "alpha": 2.0, "seed": 0} | options)
    for seed, parameter in enumerate(parameters):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        parameter.data.copy_(0.05 * noise)
    if own:
        replace_lora_passes(lora_layers(unet))
    return Student(unet.train(), base.noise_schedule(), base.predict, dtype)


def inputs(base) -> tuple[torch.Tensor, ...]:
    config = base.denoiser().config
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(2, 4, config.sample_size, config.sample_size, generator=generator)
    context = torch.randn(2, 7, config.cross_attention_dim, generator=generator)
    return x_t, torch.tensor([100, 700]), context


def gradients(student: Student, loss: torch.Tensor) -> list[torch.Tensor]:
    parameters = [p for p in student.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("options", LORAS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_own_passes_give_the_bits_of_peft(tiny, options, precision):
    """In bf16 too: a CPU's autocast casts the same numbers, only more often."""
    results = []
    for own in (True, False):
        student = new_student(tiny, DTYPES[precision], own, **options)
        if not own:
            for layer in student.lora_layers:
                layer.cast_input_dtype_enabled = False
        prediction = student(*inputs(tiny))
        with torch.no_grad(), disable_lora(student.lora_layers):
            teacher = student(*inputs(tiny))
        loss = (prediction - teacher).square().mean()
        results.append([prediction.detach(), *gradients(student, loss)])
    assert results[0][0].dtype == torch.float32
    assert all(gradient.abs().sum() > 0 for gradient in results[0][1:])
    assert all(map(torch.equal, *results))


class DtypeCopies(TorchDispatchMode):
    """A counter of the copies to another type."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if func is torch.ops.aten._to_copy.default:
            tensors = [leaf for leaf in tree_leaves((args, result)) if hasattr(leaf, "dtype")]
            self.count += len({tensor.dtype for tensor in tensors}) > 1
        return result


def test_a_step_casts_its_inputs_its_weights_its_prediction_and_their_gradients(tiny):
    counts = {}
    for targets in ("attention", "all"):
        student = new_student(tiny, torch.bfloat16, targets=targets)
        x_t, t, context = inputs(tiny)
        with DtypeCopies() as counter:
            student(x_t, t, context).square().mean().backward()
        counts[targets] = counter.count
    # latents, text, timesteps twice, prediction, LoRA; backwards the last two
    assert counts == {"attention": 8, "all": 8}


def test_attention_on_a_gpu_is_that_of_diffusers(tiny):
    """It runs on a CPU as well, and there its bits are those of diffusers' own processor."""
    results = []
    for device in ("cpu", "cuda"):
        student = new_student(tiny, torch.float32)
        choose_attention(student.denoiser, torch.float32, device)
        prediction = student(*inputs(tiny))
        results.append([prediction, *gradients(student, prediction.square().mean())])
    processors = student.denoiser.attn_processors.values()
    assert all(isinstance(processor, PlainAttention) for processor in processors)
    assert all(map(torch.equal, *results))


def test_the_gradients_of_cast_weights_by_hand():
    a = torch.tensor([[1.0, 2.0]], requires_grad=True)
    b = torch.tensor([3.0], requires_grad=True)
    cast_a, cast_b = CastWeights.apply(torch.bfloat16, None, None, a, b)
    assert cast_a.dtype == torch.bfloat16 and cast_a.tolist() == [[1.0, 2.0]]
    (cast_a.sum() * 2 + cast_b.sum() * 5).backward()
    assert a.grad.dtype == torch.float32
    assert a.grad.tolist() == [[2.0, 2.0]] and b.grad.tolist() == [5.0]


def test_a_pass_without_gradients_leaves_an_earlier_one_its_weights(tiny):
    """Consistency's target is such a pass, between a pass and its recomputation."""
    found = []
    for checkpointing in (False, True):
        config = Train(mixed_precision="bf16", rank=2, gradient_checkpointing=checkpointing)
        networks = build_networks(tiny, config)
        for parameter in networks.parameters:
            parameter.data.add_(0.05)
        student = Student(networks.denoiser, tiny.noise_schedule(), tiny.predict, torch.bfloat16)
        loss = student(*inputs(tiny)).square().mean()
        with torch.no_grad():
            student(*inputs(tiny))
        loss.backward()
        found.append([parameter.grad for parameter in networks.parameters])
    assert all(gradient.abs().sum() > 0 for gradient in found[0])
    assert all(map(torch.equal, *found))


def test_fp16_learns_what_would_vanish_without_the_loss_scale(tiny):
    results = {}
    for precision in ("fp32", "fp16"):
        student = new_student(tiny, DTYPES[precision])
        # gradients of 1e-8, which fp16 rounds to zero
        loss = 1e-6 * student(*inputs(tiny)).square().mean()
        results[precision] = torch.cat([x.flatten() for x in gradients(student, loss)])
    assert results["fp16"].dtype == torch.float32
    difference = (results["fp16"] - results["fp32"]).norm() / results["fp32"].norm()
    # scaled, many of them are still subnormal in fp16, where a few bits are left
    assert 0 < difference < 0.05
    unscaled = new_student(tiny, torch.float16)
    unscaled.loss_scale = None
    lost = gradients(unscaled, 1e-6 * unscaled(*inputs(tiny)).square().mean())
    assert float(torch.cat([x.flatten() for x in lost]).norm()) < 0.1 * results["fp32"].norm()


def test_the_gradient_of_a_learned_text_is_not_scaled(tiny):
    """Distribution learns a row of the fake score's text."""
    results = []
    for dtype in (torch.float32, torch.float16):
        student = new_student(tiny, dtype)
        x_t, t, context = inputs(tiny)
        context.requires_grad_(True)
        loss = student(x_t, t, context).square().mean()
        results.append(torch.autograd.grad(loss, context)[0])
    assert results[1].dtype == torch.float32
    assert float((results[1] - results[0]).norm()) < 0.02 * float(results[0].norm())


def test_gradients_that_overflow_count_as_zeros_and_halve_the_scale(tiny):
    student = new_student(tiny, torch.float16)
    loss_scale = student.loss_scale
    loss_scale.scale.fill_(2.0**40)
    loss = student(*inputs(tiny)).square().mean()
    assert all(float(x.abs().sum()) == 0 for x in gradients(student, loss))
    assert float(loss_scale.scale) == 2.0**39
    loss_scale.scale.fill_(2.0**10)
    loss = student(*inputs(tiny)).square().mean()
    assert all(x.isfinite().all() and x.abs().sum() > 0 for x in gradients(student, loss))
    assert float(loss_scale.scale) == 2.0**10 and int(loss_scale.growth) == 1


def test_the_scale_of_a_pass_is_the_one_that_its_gradients_are_divided_by(tiny):
    """Two passes before one backward pass: the first overflow must not change the other's."""
    student = new_student(tiny, torch.float16)
    expected = gradients(student, student(*inputs(tiny)).square().mean())
    loss = student(*inputs(tiny)).square().mean()
    student.loss_scale.scale.fill_(2.0**8)
    for one, other in zip(gradients(student, loss), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_scale_doubles_after_many_finite_passes_and_is_restored():
    loss_scale = LossScale(torch.device("cpu"))
    loss_scale.growth.fill_(LossScale.GROWTH_INTERVAL - 1)
    gradient = loss_scale.unscale(torch.tensor([6.0]), torch.tensor([2.0]))
    assert gradient.tolist() == [3.0] and float(loss_scale.scale) == 2 * LossScale.FIRST
    restored = LossScale(torch.device("cpu"))
    restored.load_state(loss_scale.state())
    assert restored.state() == loss_scale.state()


def test_joint_attention_keeps_its_own_processor():
    """It has two streams, which plain attention would drop."""
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(num_layers=2)
    before = transformer.attn_processors
    choose_attention(transformer, torch.bfloat16, "cuda")
    assert before and transformer.attn_processors == before
