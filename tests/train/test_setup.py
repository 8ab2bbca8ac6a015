import pytest
import torch

from nbs_lib.config import Train
from nbs_lib.models import find_base
from nbs_lib.train.networks import Networks, build_networks
from nbs_lib.train.setup import allow_tf32, learning_rate, new_optimizer
from nbs_lib.train.student import Student


def rates(**options) -> list[float]:
    config = Train(learning_rate=1.0, steps=100, **options)
    return [learning_rate(config, step) for step in range(100)]


def test_the_learning_rate_by_hand():
    cosine = rates(lr_warmup_steps=10)
    assert cosine[0] == pytest.approx(0.1) and cosine[9] == cosine[10] == 1.0
    assert cosine[55] == pytest.approx(0.5) and 0 < cosine[99] < 0.001
    linear, constant = (
        rates(lr_warmup_steps=10, lr_scheduler="linear"),
        rates(lr_warmup_steps=10, lr_scheduler="constant"),
    )
    assert (
        linear[55] == pytest.approx(0.5)
        and constant[0] == pytest.approx(0.1)
        and set(constant[10:]) == {1.0}
    )
    assert rates(lr_warmup_steps=0)[0] == 1.0
    assert learning_rate(Train(learning_rate=1.0, steps=1), 0) == pytest.approx(0.1), (
        "a training shorter than its warmup"
    )


def test_restarts_and_powers_of_the_learning_rate_by_hand():
    restarts = rates(lr_warmup_steps=10, lr_scheduler="cosine_with_restarts", lr_num_cycles=3)
    assert [restarts[step] for step in (10, 40, 70)] == [1.0] * 3, "three falls of thirty steps"
    assert restarts[25] == restarts[55] == pytest.approx(0.5) and restarts[39] < 0.01
    assert restarts == rates(
        lr_warmup_steps=10, lr_scheduler="cosine_with_restarts", lr_num_cycles=3
    ), "a function of the step"
    power = rates(lr_warmup_steps=0, lr_scheduler="polynomial", lr_power=2.0)
    assert power[50] == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "prodigy"])
@pytest.mark.parametrize("name", ["adam_beta1", "adam_beta2", "adam_epsilon", "adam_weight_decay"])
def test_optimizer_parameters_change_its_steps(optimizer, name):
    assert not torch.equal(
        stepped(Train(optimizer=optimizer, **{name: 0.5})), stepped(Train(optimizer=optimizer))
    )


def stepped(config: Train) -> torch.Tensor:
    """Return a weight after three steps on different gradients."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = new_optimizer(Networks(None, None, [weight], []), config)
    for step in range(3):
        weight.grad = torch.tensor([0.1 * step - 0.1, 0.3])
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize(
    ("options", "dtype", "share"),
    [
        ({"method": "lora", "mixed_precision": "bf16"}, torch.bfloat16, 0.2),
        ({"method": "dora", "mixed_precision": "fp32"}, torch.float32, 0.2),
        ({"method": "full", "mixed_precision": "bf16"}, torch.float32, 1.0),
    ],
)
def test_trained_weights_are_fp32_and_frozen_ones_in_low_precision(options, dtype, share):
    networks = build_networks(find_base("embedded"), Train(**options))
    assert all(p.dtype == torch.float32 and p.requires_grad for p in networks.parameters)
    rest = [p for p in networks.denoiser.parameters() if not p.requires_grad]
    assert {p.dtype for p in rest} == ({dtype} if share < 1 else set())
    trained = sum(p.numel() for p in networks.parameters)
    every = sum(p.numel() for p in networks.denoiser.parameters())
    assert 0 < trained <= share * every
    assert (networks.teacher_denoiser is not None) == (options["method"] == "full")


def test_gradient_checkpointing_gives_the_same_gradients():
    """The recompute comes after the teacher's pass, and sees the adapter on."""
    gradients = []
    for checkpointing in (False, True):
        base = find_base("embedded")
        networks = build_networks(
            base,
            Train(gradient_checkpointing=checkpointing, mixed_precision="fp32", rank=4, alpha=4.0),
        )
        unet = networks.denoiser
        parameters = networks.parameters
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                parameter.copy_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) * 0.05
                )
        student = Student(unet, base.noise_schedule(), base.predict, torch.float32)
        generator = torch.Generator().manual_seed(0)
        x, context = (
            torch.randn(2, 16, 16, 16, generator=generator),
            torch.randn(2, 40, 192, generator=generator),
        )
        t = torch.tensor([100, 700])
        prediction = student(x, t, context)
        from nbs_lib.models.lora.layers import disable_lora, lora_layers

        with torch.no_grad(), disable_lora(lora_layers(unet)):
            student(x, t, context)
        prediction.square().mean().backward()
        gradients.append([parameter.grad for parameter in parameters])
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients[0])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-7)


def test_gradient_checkpointing_remembers_which_adapter_worked():
    """The backward pass computes the generator's layers again after the fake score's pass."""
    gradients = []
    for checkpointing in (False, True):
        base = find_base("embedded")
        options = {"mixed_precision": "fp32", "rank": 4, "alpha": 4.0}
        config = Train(objective="distribution", gradient_checkpointing=checkpointing, **options)
        networks = build_networks(base, config)
        for seed, parameter in enumerate(networks.parameters):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            parameter.data.copy_(0.05 * noise)
        student = Student(networks.denoiser, base.noise_schedule(), base.predict, torch.float32)
        generator = torch.Generator().manual_seed(0)
        x_t = torch.randn(2, 16, 16, 16, generator=generator)
        context = torch.randn(2, 40, 192, generator=generator)
        t = torch.tensor([100, 700])
        loss = student(x_t, t, context).square().mean()
        with student.fake_score():
            loss = loss + 2 * student(x_t, t, student.steps_aware(context, 4)).square().mean()
        loss.backward()
        gradients.append([parameter.grad for parameter in networks.parameters])
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients[0])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_set_for_products_and_convolutions(allowed):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        allow_tf32(allowed)
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
