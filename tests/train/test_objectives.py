from dataclasses import replace

import pytest
import torch

from nbs_lib.config import Train
from nbs_lib.diffusion import (
    add_noise,
    classifier_free_guidance,
    get_velocity,
    min_snr_weight,
)
from nbs_lib.models import find_base
from nbs_lib.models.lora.layers import FAKE_SCORE, add_fake_score, add_lora, named_lora_parameters
from nbs_lib.models.sampling_recipe import spacing_options
from nbs_lib.train.data.batch import Batch, Rollout
from nbs_lib.train.objectives import OBJECTIVES, consistency, distribution, finetune, guidance
from nbs_lib.train.student import Student

CONFIG = Train()


@pytest.fixture(scope="module")
def student() -> Student:
    base = find_base("embedded")
    unet = base.denoiser()
    add_lora(unet, 4, 4.0, seed=0)
    return Student(unet, base.noise_schedule(), base.predict, torch.float32)


@pytest.fixture(scope="module")
def batch() -> Batch:
    base, generator = find_base("embedded"), torch.Generator().manual_seed(0)
    encoders = base.text_encoders()
    context = base.encode_prompt(
        ["A person holding a cat", "A boy is watching TV"], encoders
    ).context
    uncond = base.encode_negative_prompt(encoders).context.expand(2, -1, -1)
    latents, noise = torch.randn(2, 2, 16, 16, 16, generator=generator)
    ones, t = torch.ones(2), torch.tensor([200, 800])
    return Batch(latents, noise, t, context, uncond, 3 * ones, ones, torch.tensor([0, 1]))


class Answers(torch.nn.Module):
    """A UNet that always returns the same answer."""

    def __init__(self, answer: torch.Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t, context, added_cond_kwargs, return_dict):
        return (self.answer.repeat(len(x_t) // len(self.answer), 1, 1, 1),)


def answering(student: Student, answer: torch.Tensor, prediction_type: str) -> Student:
    schedule = replace(student.schedule, prediction_type=prediction_type)
    return Student(Answers(answer), schedule, student.predict, torch.float32, Answers(answer))


def test_the_teacher_is_two_plain_passes_of_the_base(student, batch):
    x_t, plain = student.noisy_latents(batch), find_base("embedded").denoiser()
    with torch.no_grad():
        uncond, cond = (
            plain(x_t, batch.t, context).sample for context in (batch.uncond, batch.context)
        )
    torch.testing.assert_close(
        student.teacher(x_t, batch),
        classifier_free_guidance(uncond, cond, 3.0),
        atol=1e-4,
        rtol=1e-4,
    )
    differing = replace(batch, w=torch.tensor([1.0, 7.5]))
    expected = torch.stack(
        [classifier_free_guidance(uncond, cond, w)[i] for i, w in enumerate((1.0, 7.5))]
    )
    torch.testing.assert_close(student.teacher(x_t, differing), expected, atol=1e-4, rtol=1e-4)


def test_a_frozen_copy_teaches_like_the_disabled_adapter(student, batch):
    beside = Student(
        student.denoiser,
        student.schedule,
        student.predict,
        torch.float32,
        find_base("embedded").denoiser(),
    )
    x_t = student.noisy_latents(batch)
    torch.testing.assert_close(
        beside.teacher(x_t, batch), student.teacher(x_t, batch), atol=1e-5, rtol=1e-5
    )
    assert [name for name, _ in beside.named_parameters()] == [
        name for name, _ in student.named_parameters()
    ]


def test_cached_answers_replace_the_teacher(student, batch):
    x_t = student.noisy_latents(batch)
    cached = replace(
        batch, answers=(torch.zeros_like(x_t), torch.ones_like(x_t)), x_t=torch.full_like(x_t, 2.0)
    )
    assert torch.equal(student.noisy_latents(cached), cached.x_t)
    assert torch.equal(student.teacher(cached.x_t, cached), torch.full_like(x_t, 3.0))


def test_an_untrained_student_has_no_loss_at_w_1_and_some_at_w_3(student, batch):
    assert float(guidance(student, student, replace(batch, w=torch.ones(2)), CONFIG).max()) < 1e-8
    losses = guidance(student, student, batch, CONFIG)
    assert losses.shape == (2,) and float(losses.min()) > 1e-5


def test_the_guidance_loss_is_stated_in_eps_for_every_prediction_type(student, batch):
    """eps = sigma x_t + alpha v: an error of 1 in v is one of alpha in eps."""
    cached = replace(batch, answers=(torch.zeros(2, 16, 16, 16), torch.zeros(2, 16, 16, 16)))
    alpha, _ = student.levels(batch.t)
    for prediction_type, expected in (
        ("epsilon", torch.ones(2)),
        ("v_prediction", alpha.flatten().square()),
    ):
        ones = answering(student, torch.ones(2, 16, 16, 16), prediction_type)
        torch.testing.assert_close(guidance(ones, ones, cached, CONFIG), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_finetune_loss_is_zero_for_a_right_prediction_and_min_snr_weighted(
    student, batch, prediction_type
):
    alpha, sigma = student.levels(batch.t)
    right = {
        "epsilon": batch.noise,
        "v_prediction": get_velocity(batch.latents, batch.noise, alpha, sigma),
        "sample": batch.latents,
    }[prediction_type]
    knows = answering(student, right, prediction_type)
    assert float(finetune(knows, knows, batch, CONFIG).abs().max()) < 1e-10
    off = answering(student, right + 2, prediction_type)
    weight = min_snr_weight(alpha, sigma, CONFIG.snr_gamma, prediction_type).flatten()
    torch.testing.assert_close(finetune(off, off, batch, CONFIG), 4 * weight, rtol=1e-4, atol=1e-5)


def test_a_consistent_student_has_no_consistency_loss(student, batch):
    """A prediction of x_0 is the same at every timestep, and c_out is almost 1 above it."""
    knows = answering(student, batch.latents, "sample")
    high = replace(batch, t=torch.tensor([500, 900]))
    assert float(consistency(knows, knows, high, CONFIG).max()) < 1e-4
    assert float(consistency(student, student, high, CONFIG).min()) > 1e-3


def test_consistency_uses_the_timesteps_of_the_scheduler(student, batch):
    from diffusers import LCMScheduler

    timesteps = []

    def engine(x_t, t, context, pooled):
        timesteps.extend(t.tolist())
        return student(x_t, t, context, pooled)

    for t in ([0, 999], [19, 20], [399, 400]):
        consistency(engine, student, replace(batch, t=torch.tensor(t)), CONFIG)
    assert timesteps == [19, 999, 19, 39, 399, 419]
    scheduler = find_base("embedded").scheduler(LCMScheduler)
    scheduler.set_timesteps(4)
    assert all((t + 1) % 20 == 0 for t in scheduler.timesteps.tolist())


@pytest.fixture
def generator() -> Student:
    """A generator and its fake score, whose adapters have learned something already."""
    base = find_base("embedded")
    unet = base.denoiser()
    parameters = [*add_lora(unet, 4, 4.0, seed=0), *add_fake_score(unet, seed=1)]
    for seed, parameter in enumerate(parameters):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        parameter.data.add_(0.02 * noise)
    return Student(unet, base.noise_schedule(), base.predict, torch.float32)


def sampled(batch: Batch, steps: int, position: list[int]) -> Batch:
    """Return the batch with each row at a step of a trajectory of its own."""
    row = torch.arange(len(position))
    renoise = torch.randn(batch.noise.shape, generator=torch.Generator().manual_seed(9))
    return replace(batch, rollout=Rollout(steps, row, row, torch.tensor(position), renoise))


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_rollout_is_the_sampling_of_the_stock_scheduler(generator, batch, steps):
    scheduler = find_base("embedded").scheduler(**spacing_options("trailing", steps))
    scheduler.set_timesteps(steps)
    x_t = batch.noise
    with torch.no_grad():
        for step, t in enumerate(scheduler.timesteps):
            state, times = generator.states(sampled(batch, steps, [step, step]))
            assert times.tolist() == [int(t)] * 2
            torch.testing.assert_close(state, x_t, atol=1e-4, rtol=1e-4)
            prediction = generator(x_t, t.expand(2), batch.context)
            x_t = scheduler.step(prediction, t, x_t).prev_sample


def test_rows_of_one_trajectory_are_its_steps(generator, batch):
    rollout = sampled(batch, 4, [1, 3]).rollout
    shared = rollout._replace(first=torch.tensor([0]), trajectory=torch.tensor([0, 0]))
    # both rows have the noise and the caption of their trajectory
    same = replace(
        batch,
        noise=batch.noise[:1].repeat(2, 1, 1, 1),
        context=batch.context[:1].repeat(2, 1, 1),
        rollout=rollout,
    )
    apart, _ = generator.states(same)
    together, _ = generator.states(replace(same, rollout=shared))
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_the_generator_rests_where_both_scores_agree(student, batch):
    """An untrained fake score at w = 1 is the teacher, so nothing moves the generator."""
    base = find_base("embedded")
    unet = base.denoiser()
    learned = add_lora(unet, 4, 4.0, seed=0)
    fake_score = add_fake_score(unet, seed=1)
    untrained = Student(unet, base.noise_schedule(), base.predict, torch.float32)
    gradients = []
    for w in (1.0, 3.0):
        rows = sampled(replace(batch, w=torch.full((2,), w)), 4, [0, 2])
        distribution(untrained, untrained, rows, CONFIG).mean().backward()
        gradients.append(sum(float(p.grad.abs().sum()) for p in learned))
        # the fake score learns the generator's guesses in any case
        assert sum(float(p.grad.abs().sum()) for p in fake_score) > 1e-3
        untrained.zero_grad()
    # no more than the rounding of passes over other numbers of rows
    assert gradients[0] < 1e-4 * gradients[1]


def test_generator_and_fake_score_learn_apart(generator, batch):
    """Each adapter has the gradient of its own loss: the other's weights change it only as data."""
    rows = sampled(batch, 4, [1, 2])
    distribution(generator, generator, rows, CONFIG).mean().backward()
    fake_score = named_lora_parameters(generator.denoiser, FAKE_SCORE)
    fake_score["steps"] = generator.denoiser.fake_score_steps
    gradients = {name: parameter.grad.clone() for name, parameter in fake_score.items()}
    generator.zero_grad()
    with torch.no_grad():
        x_start, start = generator.states(rows)
        guess = generator.x_0(generator(x_start, start, rows.context), x_start, start)
        x_t = add_noise(guess, rows.rollout.noise, *generator.levels(rows.t))
    # the score is that of samples in four steps
    by_steps = gradients["steps"].abs().sum(1)
    assert by_steps[4] > 0 and by_steps[:4].sum() == 0
    with generator.fake_score():
        prediction = generator(x_t, rows.t, generator.steps_aware(rows.context, 4))
    (generator.eps(prediction, x_t, rows.t) - rows.rollout.noise).square().mean().backward()
    for name, parameter in fake_score.items():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "distribution"])
def test_gradients_reach_the_adapter_and_nothing_else(student, batch, name):
    student.zero_grad()
    OBJECTIVES[name].loss(student, student, batch, CONFIG).mean().backward()
    for part, parameter in student.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in part), part
    assert all(p.grad.abs().sum() > 0 for part, p in student.named_parameters() if "lora_B" in part)


def test_gradients_of_distribution_reach_both_adapters_and_nothing_else(generator, batch):
    distribution(generator, generator, sampled(batch, 2, [0, 1]), CONFIG).mean().backward()
    for part, parameter in generator.named_parameters():
        learns = "lora_" in part or part == "denoiser.fake_score_steps"
        assert (parameter.grad is not None) == learns, part
        assert not learns or parameter.grad.abs().sum() > 0, part
