"""The maths of flows, by hand and against diffusers' scheduler."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from nbs_lib.diffusion import add_noise, classifier_free_guidance, min_snr_weight, to_eps, to_x_0
from nbs_lib.flow import (
    flow_distillation_weight,
    flow_velocity,
    logit_normal_timesteps,
    shift_sigma,
)
from nbs_lib.models.noise_schedule import FLOW, NoiseSchedule

SIGMAS = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64).view(-1, 1, 1, 1)


def a_state() -> tuple[torch.Tensor, ...]:
    """x_0, eps and x_t of three examples, one at each of SIGMAS."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 4, 4, 4, generator=generator, dtype=torch.float64)
    return x_0, eps, add_noise(x_0, eps, 1 - SIGMAS, SIGMAS)


def stock_scheduler(shift: float = 3.0) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def schedule_of(scheduler: FlowMatchEulerDiscreteScheduler) -> NoiseSchedule:
    return NoiseSchedule.flow(scheduler.sigmas.flip(0))


def test_a_straight_path_by_hand():
    x_0, eps = torch.tensor([2.0]), torch.tensor([-4.0])
    x_t = add_noise(x_0, eps, torch.tensor([0.75]), torch.tensor([0.25]))
    v = flow_velocity(x_0, eps)
    assert (float(x_t), float(v)) == (0.5, -6.0)
    assert float(to_x_0(v, x_t, torch.tensor(0.75), torch.tensor(0.25), FLOW)) == 2.0
    assert float(to_eps(v, x_t, torch.tensor(0.75), torch.tensor(0.25), FLOW)) == -4.0


def test_the_velocity_gives_back_noise_and_data_at_every_level():
    x_0, eps, x_t = a_state()
    v = flow_velocity(x_0, eps)
    torch.testing.assert_close(to_x_0(v, x_t, 1 - SIGMAS, SIGMAS, FLOW), x_0)
    torch.testing.assert_close(to_eps(v, x_t, 1 - SIGMAS, SIGMAS, FLOW), eps)
    # pure noise, where x_t says nothing of the picture
    ones = torch.ones(3, 1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(to_x_0(v, eps, 1 - ones, ones, FLOW), x_0)


def test_guidance_is_the_same_in_every_space():
    x_0, eps, x_t = a_state()
    v = flow_velocity(x_0, eps)
    guided = classifier_free_guidance(v, v.flip(0), 7.5)
    for convert in (to_x_0, to_eps):
        sides = (convert(side, x_t, 1 - SIGMAS, SIGMAS, FLOW) for side in (v, v.flip(0)))
        torch.testing.assert_close(
            convert(guided, x_t, 1 - SIGMAS, SIGMAS, FLOW), classifier_free_guidance(*sides, 7.5)
        )


def test_min_snr_weights_an_error_of_v_like_one_of_x_0():
    weight = min_snr_weight(1 - SIGMAS, SIGMAS, 5.0, FLOW)
    of_x_0 = min_snr_weight(1 - SIGMAS, SIGMAS, 5.0, "sample")
    # an error of v is sigma times as large in x_0
    torch.testing.assert_close(weight, of_x_0 * SIGMAS.square())
    assert weight.flatten().tolist() == pytest.approx([5 * 0.01, 0.25, 0.01])
    assert min_snr_weight(1 - SIGMAS, SIGMAS, 0.0, FLOW).flatten().tolist() == [1, 1, 1]


def test_distillation_weights_by_hand():
    expected = {
        "snr": [0.81, 0.25, 0.01],
        "truncated_snr": [0.81, 0.25, 0.81],
        "snr_plus_one": [0.82, 0.5, 0.82],
    }
    for weighting, weights in expected.items():
        computed = flow_distillation_weight(SIGMAS, weighting).flatten().tolist()
        assert computed == pytest.approx(weights), weighting


def test_logit_normal_timesteps_by_hand():
    normal = torch.tensor([0.0, 2.0, -2.0, 50.0, -50.0])
    # the logistic function of 2 is 0.8808
    assert logit_normal_timesteps(normal, 1000).tolist() == [500, 880, 119, 999, 0]


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_levels_and_times_are_the_scheduler_s(shift):
    scheduler = stock_scheduler(shift)
    schedule = schedule_of(scheduler)
    t = torch.tensor([0, 499, 999])
    torch.testing.assert_close(schedule.times(t), scheduler.timesteps.flip(0)[t])
    by_hand = shift_sigma(torch.tensor([0.001, 0.5, 1.0]), shift)
    alpha, sigma = schedule.levels(t)
    torch.testing.assert_close(sigma.flatten(), by_hand)
    torch.testing.assert_close(alpha.flatten(), 1 - by_hand)
    # a scheduler's own timesteps are no whole numbers
    torch.testing.assert_close(schedule.levels(schedule.times(t))[1], sigma)
    x_0, eps = torch.randn(2, 3, 4, 8, 8)
    theirs = scheduler.scale_noise(x_0, schedule.times(t), eps)
    torch.testing.assert_close(add_noise(x_0, eps, alpha, sigma), theirs)


def test_noising_the_predicted_x_0_is_the_step_of_euler():
    scheduler = stock_scheduler()
    schedule = schedule_of(scheduler)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    times = schedule.few_step_timesteps(4)
    torch.testing.assert_close(schedule.times(times), scheduler.timesteps)
    x_t, v = torch.randn(2, 1, 4, 8, 8)
    for t, end, now in zip(times, times[1:], scheduler.timesteps, strict=False):
        t, end = t.view(1), end.view(1)
        x_0, eps = schedule.x_0(v, x_t, t), schedule.eps(v, x_t, t)
        ours = add_noise(x_0, eps, *schedule.levels(end))
        torch.testing.assert_close(ours, scheduler.step(v, now, x_t).prev_sample)
        x_t = ours


def test_a_single_step_of_a_flow_begins_at_pure_noise():
    schedule = schedule_of(stock_scheduler())
    assert schedule.few_step_timesteps(1).tolist() == [999]
    assert schedule.levels(torch.tensor([999]))[0].item() == 0
