"""The dial: which guidance scale w an adapter scale λ amounts to, measured.

For each λ, tuned's latents are held against the guided base's at many w from the same noise; the nearest w is where their mean
squared difference is least. To be expected is w = 1 + λ (w_train − 1), for the adapter's change of the prediction is about
linear in λ.
"""

from typing import Any

import numpy as np

from ...config import Compare
from ..sampling.sample_cache import SampleCache
from ..sampling.sampler import Sampler
from .confidence import bootstrap_interval, by_prompt
from .image_metrics import latent_mse

POINTS = 11
"""Guidance scales that are tried, from 1 upwards."""


def guidance_turns(sampler: Sampler, config: Compare) -> list[float]:
    """The λ that are measured: of an adapter that holds guidance; none of anything else."""
    return (
        config.effective_guidance_at
        if sampler.objective == "guidance" and not sampler.whole
        else []
    )


def measure_effective_guidance(kept: SampleCache, config: Compare) -> dict[str, Any]:
    """w: the scales that were tried; turns: of each λ the nearest w with its interval over prompts, None where it lies beyond
    them; what was to be expected; and the difference that is left there."""
    w_train = kept.sampler.w_train
    pairs = [(prompt, seed) for prompt in config.prompts for seed in config.seeds]
    prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    scales = scales_to_try(w_train, config.effective_guidance_at)
    guided = [
        kept.sample("guided", prompts, seeds, config.steps, guidance=w).latents for w in scales
    ]
    turns = []
    for turn in config.effective_guidance_at:
        tuned = kept.sample("tuned", prompts, seeds, config.steps, adapter_scale=turn).latents
        errors = np.stack(
            [by_prompt(latent_mse(tuned, each), prompts) for each in guided]
        )  # [w, prompts]
        low, high = bootstrap_interval(
            errors, lambda *drawn: nearest(scales, np.array([each.mean() for each in drawn]))
        )
        turns.append(
            {
                "adapter_scale": turn,
                "w": nearest(scales, errors.mean(1)),
                "low": low,
                "high": high,
                "expected": 1 + turn * (w_train - 1),
                "latent_mse": float(errors.mean(1).min()),
            }
        )
    return {"w": scales, "turns": turns}


def scales_to_try(w_train: float, turns: list[float]) -> list[float]:
    """From 1 to beyond what the largest λ is expected to be."""
    top = min(100.0, max(2.0, 1 + 1.3 * max(turns) * (w_train - 1)))
    return [round(float(w), 3) for w in np.linspace(1, top, POINTS)]


def nearest(scales: list[float], errors: np.ndarray) -> float | None:
    """Where the errors [w] are least: the vertex of the parabola through the least one and its neighbours, evenly apart; 1 at
    least, as guidance is. None where the largest scale that was tried is the nearest: the least may lie beyond it."""
    i = int(np.argmin(errors))
    if i == len(scales) - 1:
        return None
    i = max(i, 1)
    before, here, after = errors[i - 1 : i + 2]
    bend = before - 2 * here + after
    vertex = (
        scales[i] + (scales[1] - scales[0]) * (before - after) / (2 * bend)
        if bend > 0
        else scales[int(np.argmin(errors))]
    )
    return float(max(scales[0], vertex))
