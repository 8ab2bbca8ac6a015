"""The teacher's stored predictions equal those of a live teacher."""

import pytest
import torch
from safetensors.torch import load_file

from nbs_lib.config import Prepare
from nbs_lib.diffusion import (
    add_noise,
    alpha_sigma,
    classifier_free_guidance,
    noise_like,
    to_eps,
    to_x_0,
)
from nbs_lib.models import find_base
from nbs_lib.prepare import PrepareResult, prepare
from nbs_lib.prepare.encode.teacher_cache import timesteps


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


def prepared(outputs, **parameters) -> PrepareResult:
    return prepare(
        Prepare(
            **{
                "run": str(outputs / "run"),
                "max_examples": 5,
                "batch_size": 4,
                "teacher_samples": 4,
                "replace": True,
            }
            | parameters
        )
    )


def live(
    result: PrepareResult, x_t: torch.Tensor, t: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    unet, cache = find_base("embedded").denoiser(), result.cache
    with torch.no_grad():
        uncond = unet(x_t, t, cache.unconditional["negative"].expand(len(x_t), -1, -1)).sample
        return uncond, unet(x_t, t, cache.embeddings(list(range(5)))).sample


def answers_of(result: PrepareResult) -> dict[str, torch.Tensor]:
    [file] = (result.cache.folder / "answers").iterdir()
    return load_file(file)


def noise(result: PrepareResult, draw: int) -> torch.Tensor:
    return torch.stack(
        [noise_like(0, key, draw, (16, 16, 16)) for key in result.cache.examples["key"].to_pylist()]
    )


def test_predictions_on_data_are_the_teacher_s_in_half_precision(outputs):
    result = prepared(
        outputs, teacher_cache="data", negative_prompt="A road that is going down a hill"
    )
    answers, cache, alphas = (
        answers_of(result),
        result.cache,
        find_base("embedded").scheduler().alphas_cumprod,
    )
    assert answers["t"].shape == (5, 4)
    assert answers["uncond"].shape == answers["cond"].shape == (5, 4, 16, 16, 16)
    assert answers["cond"].dtype == torch.float16 and "x_t" not in answers
    t = answers["t"][:, 2]
    uncond, cond = live(
        result,
        add_noise(cache.latents(list(range(5))), noise(result, 2), *alpha_sigma(alphas, t)),
        t,
    )
    torch.testing.assert_close(answers["uncond"][:, 2].float(), uncond, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(answers["cond"][:, 2].float(), cond, rtol=2e-3, atol=2e-3)
    assert not torch.allclose(uncond, cond, atol=1e-2)


def test_trajectories_go_from_noise_to_the_teacher_s_own_pictures(outputs):
    result = prepared(
        outputs, teacher_cache="trajectories", teacher_samples=6, teacher_guidance_scale=2.0
    )
    base = find_base("embedded")
    answers, alphas = answers_of(result), base.scheduler().alphas_cumprod
    assert (answers["t"][:, :-1] > answers["t"][:, 1:]).all()
    assert answers["t"].shape == (5, 6) and answers["x_t"].shape == (5, 6, 16, 16, 16)
    for draw in (-1, 0, 4):
        if draw < 0:  # from pure noise, which is not kept
            x_t, t = noise(result, 0), torch.full((5,), 999)
        else:
            x_t, t = answers["x_t"][:, draw].float(), answers["t"][:, draw]
        end = answers["t"][:, draw + 1]
        uncond, cond = live(result, x_t, t)
        if draw >= 0:
            torch.testing.assert_close(answers["cond"][:, draw].float(), cond, rtol=1e-2, atol=1e-2)
        guided = classifier_free_guidance(uncond, cond, 2.0)
        x_0, eps = (
            convert(guided, x_t, *alpha_sigma(alphas, t), base.prediction_type)
            for convert in (to_x_0, to_eps)
        )
        after = add_noise(x_0, eps, *alpha_sigma(alphas, end))
        torch.testing.assert_close(answers["x_t"][:, draw + 1].float(), after, rtol=2e-2, atol=5e-2)


def test_trajectories_of_a_flow_are_euler_s_steps(outputs, tiny_base):
    """By formulas of the paper alone: arXiv 2403.03206, eq. 23, with the base's shift of 3."""
    base = find_base(str(tiny_base("sd3", outputs / "base")))
    options = {"base": str(base.folder), "resolution": 32, "teacher_guidance_scale": 2.0}
    result = prepared(outputs, teacher_cache="trajectories", **options)
    answers = answers_of(result)
    cache = result.cache
    transformer = base.denoiser()

    def sigma(t: torch.Tensor) -> torch.Tensor:
        unshifted = (t + 1) / 1000
        return 3 * unshifted / (1 + 2 * unshifted)

    def velocity(x_t: torch.Tensor, t: torch.Tensor, embeddings, pooled) -> torch.Tensor:
        with torch.no_grad():
            return transformer(x_t, embeddings, pooled, 1000 * sigma(t)).sample

    x_t = torch.stack(
        [noise_like(0, key, 0, (4, 8, 8)) for key in cache.examples["key"].to_pylist()]
    )
    t = torch.full((5,), 999)
    rows = list(range(5))
    caption = cache.embeddings(rows), cache.embeddings(rows, "pooled")
    negative = cache.unconditional["negative"], cache.unconditional["negative_pooled"]
    empty = [text.expand_as(cond) for text, cond in zip(negative, caption, strict=True)]
    for draw in range(4):
        uncond, cond = velocity(x_t, t, *empty), velocity(x_t, t, *caption)
        if draw:
            torch.testing.assert_close(
                answers["cond"][:, draw - 1].float(), cond, rtol=1e-2, atol=1e-2
            )
        end = answers["t"][:, draw]
        step = (sigma(end) - sigma(t)).view(-1, 1, 1, 1)
        after = x_t + step * classifier_free_guidance(uncond, cond, 2.0)
        states = answers["x_t"][:, draw].float()
        torch.testing.assert_close(states, after, rtol=1e-2, atol=1e-2)
        x_t, t = states, end


def test_each_example_has_a_timestep_in_every_share():
    config = Prepare(teacher_samples=10)
    for together in (False, True):
        t = timesteps([str(i) for i in range(200)], config, together)
        assert (t // 100 == torch.arange(9, -1, -1)).all()
        assert len(set((t % 100).flatten().tolist())) > 80, "all of a share is met"
    assert (timesteps(["3"], config, together=True).diff() == -100).all()


def test_equal_settings_reuse_predictions_and_others_do_not(outputs):
    config = {"teacher_cache": "data", "teacher_samples": 2}
    first, again = prepared(outputs, **config), prepared(outputs, **config)
    assert again.built.reused and again.cache.meta["answers"] == {
        "states": "data",
        "draws": 2,
        "seed": 0,
    }
    for other in (
        {"teacher_samples": 3},
        {"teacher_cache": "trajectories"},
        {"teacher_cache": "none"},
        {"negative_prompt": "a road"},
    ):
        assert prepared(outputs, **config | other).cache.meta["key"] != first.cache.meta["key"]
