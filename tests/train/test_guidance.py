import pytest
import torch

from nbs_lib.adapter import attach
from nbs_lib.diffusion import guided
from nbs_lib.models import embed, find_base
from nbs_lib.train.data import Batch
from nbs_lib.train.guidance import Student, guidance_loss
from nbs_lib.train.loop import schedule


@pytest.fixture
def student():
    base = find_base("embedded")
    unet = base.unet()
    attach(unet, 4, 4.0, seed=0)
    return Student(unet, base.scheduler().alphas_cumprod, "epsilon", torch.float32)


@pytest.fixture
def batch():
    base, generator = find_base("embedded"), torch.Generator().manual_seed(0)
    context = embed(["A person holding a cat", "A boy is watching TV"], base.tokenizer(), base.text_encoder())
    empty = embed([""], base.tokenizer(), base.text_encoder()).expand(2, -1, -1)
    latents, noise = torch.randn(2, 2, 4, 16, 16, generator=generator)
    return Batch(latents, noise, torch.tensor([200, 800]), context, empty)


def test_the_teacher_is_two_plain_passes_of_the_base(student, batch):
    x_t, plain = student.states(batch), find_base("embedded").unet()
    with torch.no_grad():
        uncond, cond = (plain(x_t, batch.t, context).sample for context in (batch.empty, batch.context))
    torch.testing.assert_close(student.teacher(x_t, batch, 3.0), guided(uncond, cond, 3.0), atol=1e-4, rtol=1e-4)


def test_an_untrained_student_has_no_loss_at_w_1_and_some_at_w_3(student, batch):
    assert float(guidance_loss(student, student, batch, 1.0)) < 1e-8
    assert float(guidance_loss(student, student, batch, 3.0)) > 1e-5


def test_gradients_reach_the_adapter_and_nothing_else(student, batch):
    guidance_loss(student, student, batch, 3.0).backward()
    for name, parameter in student.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name
    assert all(p.grad.abs().sum() > 0 for name, p in student.named_parameters() if "lora_B" in name)


def test_the_learning_rate_by_hand():
    assert schedule(0, 100) == 0.1 and schedule(9, 100) == 1.0
    assert schedule(10, 100) == 1.0 and schedule(55, 100) == pytest.approx(0.55)
    assert 0.1 <= schedule(99, 100) < 0.11
