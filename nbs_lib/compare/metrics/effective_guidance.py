"""The effective guidance of an adapter scale: the guidance scale w that a λ amounts to.

For each λ, tuned's latents are compared with the guided base's at many w from the same noise; the
nearest w has the least mean squared difference. The expectation is w = 1 + λ (w_train − 1),
because the adapter's change of the prediction is about linear in λ.
"""

from collections.abc import Sequence

import numpy as np

from ...config import Compare
from ..sampling.sample_cache import SampleCache
from ..sampling.settings import SamplingSettings, SettingsResolver
from .confidence import bootstrap_interval, by_prompt
from .image_metrics import latent_mse

POINTS = 11  # guidance scales that are tried, from 1 upwards


def guidance_settings(
    resolver: SettingsResolver, config: Compare
) -> tuple[list[SamplingSettings], list[SamplingSettings]]:
    """Return the settings of `guided` at many w, and of `tuned` at the λ to measure.

    Both are empty unless an adapter that holds guidance is to be measured.
    """
    scales = config.effective_guidance_at
    # other objectives teach no guidance, and a full model has no λ
    if not scales or resolver.objective != "guidance" or resolver.full_model:
        return [], []
    guided = [
        resolver.resolve("guided", config.steps, guidance=w)
        for w in scales_to_try(resolver.w_train, scales)
    ]
    tuned = [resolver.resolve("tuned", config.steps, adapter_scale=scale) for scale in scales]
    return guided, tuned


def measure_effective_guidance(
    cache: SampleCache,
    guided: Sequence[SamplingSettings],
    tuned: Sequence[SamplingSettings],
    prompts: list[str],
    seeds: list[int],
) -> dict:
    """Return the scales that were tried, `w`, and a row for each λ, `turns`.

    A row has the nearest w with its interval over prompts, None if it may lie beyond the scales
    that were tried; the expected w; and the least mean squared difference.
    guided, tuned: see `guidance_settings`
    """
    w_train = cache.sampler.resolver.w_train
    scales = [settings.w for settings in guided]
    guided_latents = [cache.get_or_sample(settings, prompts, seeds).latents for settings in guided]

    def nearest_of_means(*errors: np.ndarray):
        return nearest(scales, np.array([values.mean() for values in errors]))

    rows = []
    for settings in tuned:
        [(_, adapter_scale)] = settings.adapters
        latents = cache.get_or_sample(settings, prompts, seeds).latents
        # latents, not pictures: decoding would round the small differences away
        errors = [by_prompt(latent_mse(latents, other), prompts) for other in guided_latents]
        low, high = bootstrap_interval(errors, nearest_of_means)
        means = np.stack(errors).mean(1)
        rows.append(
            {
                "adapter_scale": adapter_scale,
                "w": nearest(scales, means),
                "low": low,
                "high": high,
                "expected": 1 + adapter_scale * (w_train - 1),
                "latent_mse": float(means.min()),
            }
        )
    return {"w": scales, "turns": rows}


def scales_to_try(w_train: float, adapter_scales: Sequence[float]) -> list[float]:
    """Return guidance scales from 1 to beyond the one expected of the largest λ."""
    # 1.3: the nearest w may be larger than expected, and must lie within the scales
    highest = min(100.0, max(2.0, 1 + 1.3 * max(adapter_scales) * (w_train - 1)))
    return [round(float(w), 3) for w in np.linspace(1, highest, POINTS)]


def nearest(scales: Sequence[float], errors: np.ndarray) -> float | None:
    """Return the guidance scale with the least error, 1 or more.

    This is the vertex of the parabola through the least error and its neighbours; None if the
    largest scale has the least error, because a larger one may have less.
    scales: evenly spaced [w]
    errors: error at each scale [w]
    """
    least = int(np.argmin(errors))
    if least == len(scales) - 1:
        return None
    # a parabola needs a neighbour on both sides
    middle = max(least, 1)
    before, at, after = errors[middle - 1 : middle + 2]
    curvature = before - 2 * at + after
    # noise can bend the curve the other way, which has no least point
    if curvature <= 0:
        return float(scales[least])
    spacing = scales[1] - scales[0]
    vertex = scales[middle] + spacing * (before - after) / (2 * curvature)
    # below 1 there is no guidance
    return float(max(scales[0], vertex))
