import pytest
import torch

from nbs_lib.diffusion import (
    add_noise,
    alpha_sigma,
    boundary_scalings,
    classifier_free_guidance,
    distillation_weight,
    few_step_timesteps,
    get_velocity,
    matching_gradient,
    min_snr_weight,
    noise_like,
    pseudo_huber,
    to_eps,
    to_x_0,
)
from nbs_lib.models.sampling_recipe import spacing_options

LEVELS = torch.tensor([0.9, 0.5, 0.01], dtype=torch.float64)
"""alphas_cumprod of three noise levels."""


def a_state() -> tuple[torch.Tensor, ...]:
    """x_0, eps, alpha, sigma and x_t of three examples, one at each level."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 4, 4, 4, generator=generator, dtype=torch.float64)
    alpha, sigma = alpha_sigma(LEVELS, torch.tensor([0, 1, 2]))
    return x_0, eps, alpha, sigma, add_noise(x_0, eps, alpha, sigma)


@pytest.mark.parametrize(
    ("w", "expected"),
    [(0.0, [1.0, 2.0]), (1.0, [2.0, 0.0]), (3.0, [4.0, -4.0]), (7.5, [8.5, -13.0])],
)
def test_guidance_by_hand(w, expected):
    uncond, cond = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    assert classifier_free_guidance(uncond, cond, w).tolist() == expected


def test_guidance_may_differ_from_example_to_example():
    uncond, cond = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    assert classifier_free_guidance(
        uncond, cond, torch.tensor([2.0, 5.0]).view(2, 1, 1, 1)
    ).flatten().tolist() == [2.0, 5.0]


def test_every_prediction_type_gives_back_noise_and_data():
    x_0, eps, alpha, sigma, x_t = a_state()
    predictions = {
        "epsilon": eps,
        "sample": x_0,
        "v_prediction": get_velocity(x_0, eps, alpha, sigma),
    }
    for prediction_type, prediction in predictions.items():
        torch.testing.assert_close(to_eps(prediction, x_t, alpha, sigma, prediction_type), eps)
        torch.testing.assert_close(to_x_0(prediction, x_t, alpha, sigma, prediction_type), x_0)
    with pytest.raises(ValueError, match="given 'score'"):
        to_eps(eps, x_t, alpha, sigma, "score")


def test_guidance_is_the_same_in_every_space():
    x_0, eps, alpha, sigma, x_t = a_state()
    other = eps.flip(0)
    v = to_eps_inverse(eps, x_t, alpha, sigma)
    v_other = to_eps_inverse(other, x_t, alpha, sigma)
    in_v = to_eps(classifier_free_guidance(v, v_other, 7.5), x_t, alpha, sigma, "v_prediction")
    torch.testing.assert_close(in_v, classifier_free_guidance(eps, other, 7.5))


def to_eps_inverse(
    eps: torch.Tensor, x_t: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return the v of a noise, from eps = sigma x_t + alpha v."""
    return (eps - sigma * x_t) / alpha


def test_min_snr_by_hand():
    """SNR of the levels: 9, 1, 1/99; gamma 5 caps the first."""
    alpha, sigma = alpha_sigma(LEVELS, torch.tensor([0, 1, 2]))
    in_eps = min_snr_weight(alpha, sigma, 5.0, "epsilon").flatten().tolist()
    in_v = min_snr_weight(alpha, sigma, 5.0, "v_prediction").flatten().tolist()
    assert in_eps == pytest.approx([5 / 9, 1, 1]) and in_v == pytest.approx([5 / 10, 1 / 2, 0.01])
    assert min_snr_weight(alpha, sigma, 5.0, "sample").flatten().tolist() == pytest.approx(
        [5, 1, 1 / 99]
    )
    assert min_snr_weight(alpha, sigma, 0.0, "epsilon").flatten().tolist() == [1, 1, 1]


def test_min_snr_weights_an_error_equally_in_every_space():
    x_0, eps, alpha, sigma, x_t = a_state()
    wrong = x_0 + 0.1
    wrong_eps = (x_t - alpha * wrong) / sigma
    errors = {
        "epsilon": wrong_eps - eps,
        "v_prediction": get_velocity(wrong, wrong_eps, alpha, sigma)
        - get_velocity(x_0, eps, alpha, sigma),
        "sample": wrong - x_0,
    }
    weighted = [
        min_snr_weight(alpha, sigma, 5.0, kind) * error.square() for kind, error in errors.items()
    ]
    torch.testing.assert_close(weighted[0], weighted[2])
    torch.testing.assert_close(weighted[1], weighted[2])


def test_distillation_weights_by_hand():
    """1 / alpha² of the levels: 1.11, 2, 100, of which 20 are left."""
    alpha, _ = alpha_sigma(LEVELS, torch.tensor([0, 1, 2]))
    expected = {
        "snr": [1, 1, 1],
        "truncated_snr": [1, 1, 20],
        "snr_plus_one": [1 / 0.9, 2, 20],
    }
    for weighting, weights in expected.items():
        found = distillation_weight(alpha, weighting).flatten().tolist()
        assert found == pytest.approx(weights), weighting
    # of x_0's squared error the weights are max(SNR, 1) and SNR + 1
    snr = (LEVELS / (1 - LEVELS)).view(-1, 1, 1, 1)[:2]
    truncated, plus_one = (
        snr * distillation_weight(alpha[:2], name) for name in ("truncated_snr", "snr_plus_one")
    )
    torch.testing.assert_close(truncated, snr.clamp(min=1))
    torch.testing.assert_close(plus_one, snr + 1)


def test_pseudo_huber_by_hand():
    assert pseudo_huber(torch.tensor([3.0, 1.0]), torch.tensor([0.0, 1.0]), 4.0).tolist() == [
        1.0,
        0.0,
    ]


def test_boundary_scalings_are_lcm_s():
    from diffusers import LCMScheduler

    t = torch.tensor([0, 19, 999])
    c_skip, c_out = boundary_scalings(t)
    assert (float(c_skip[0]), float(c_out[0])) == (1.0, 0.0)
    for i, step in enumerate(t.tolist()):
        theirs = LCMScheduler().get_scalings_for_boundary_condition_discrete(
            torch.tensor(float(step))
        )
        assert (float(c_skip[i]), float(c_out[i])) == pytest.approx(tuple(map(float, theirs)))
    # by hand at t = 19, scaled by ten, with sigma_data 0.5
    assert float(c_skip[1]) == pytest.approx(0.25 / (190**2 + 0.25))
    assert float(c_out[1]) == pytest.approx(190 / (190**2 + 0.25) ** 0.5, 1e-6)


@pytest.mark.parametrize("steps", range(1, 9))
def test_few_step_timesteps_are_the_scheduler_s(steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**spacing_options("trailing", steps))
    scheduler.set_timesteps(steps)
    assert few_step_timesteps(steps).tolist() == scheduler.timesteps.tolist()


def test_the_matching_gradient_by_hand():
    x_0, real, fake = (torch.full((1, 1, 1, 2), value) for value in (5.0, 1.0, 3.0))
    # from the teacher's guess towards the fake one, in units of the distance to the former
    assert matching_gradient(x_0, real, fake).flatten().tolist() == [0.5, 0.5]
    assert matching_gradient(x_0, real, real).abs().max() == 0
    assert matching_gradient(real, real, fake, smallest=0.5).flatten().tolist() == [4.0, 4.0]


def test_noise_is_a_function_of_seed_key_and_draw():
    assert torch.equal(noise_like(0, 5, 1, (4, 2)), noise_like(0, 5, 1, (4, 2)))
    others = [
        noise_like(*numbers, (4, 2))
        for numbers in ((0, 5, 1), (1, 5, 1), (0, 51, 0), (0, 5, 2), (0, 15, 1))
    ]
    assert len({tuple(noise.flatten().tolist()) for noise in others}) == 5


def test_alpha_and_sigma_are_the_scheduler_s():
    from nbs_lib.models import find_base

    scheduler = find_base("embedded").scheduler()
    x_0, eps, t = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.tensor([3, 999])
    ours = add_noise(x_0, eps, *alpha_sigma(scheduler.alphas_cumprod, t))
    torch.testing.assert_close(ours, scheduler.add_noise(x_0, eps, t))


def test_noising_the_predicted_x_0_is_the_step_of_ddim():
    from nbs_lib.models import find_base

    scheduler = find_base("embedded").scheduler()
    scheduler.set_timesteps(25)
    t, end = scheduler.timesteps[3], scheduler.timesteps[4]
    x_t, prediction = torch.randn(2, 1, 4, 16, 16)
    kind, alphas = scheduler.config.prediction_type, scheduler.alphas_cumprod
    x_0, eps = (
        convert(prediction, x_t, *alpha_sigma(alphas, t.view(1)), kind)
        for convert in (to_x_0, to_eps)
    )
    ours = add_noise(x_0, eps, *alpha_sigma(alphas, end.view(1)))
    torch.testing.assert_close(ours, scheduler.step(prediction, t, x_t).prev_sample)
