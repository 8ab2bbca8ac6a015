"""The dial of a guidance adapter: a guidance scale is asked for, and its pictures are measured.

Tuned at the λ that its dial gives for w is compared, from the same noise, with the guided base at
many w. The nearest w has the least median of the squared differences of latents over prompts;
means jump where one picture changes its scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...config import Compare
from ...models.lora.dial import dial_points
from ..sampling.sample_cache import SampleCache
from ..sampling.settings import SamplingSettings, SettingsResolver
from .confidence import bootstrap_interval, by_prompt
from .fidelity import ratio_with_interval
from .image_metrics import latent_mse

POINTS = 11  # guidance scales that are tried, from 1 upwards


@dataclass(frozen=True)
class DialSettings:
    """The settings to sample, for a measurement of a dial.

    tried: the base at evenly spaced w, the first of which is 1
    guided, tuned: the base and tuned at each target w that the adapter gives
    beyond: target w that it does not give
    highest: the largest w that it gives
    """

    tried: list[SamplingSettings]
    guided: list[SamplingSettings]
    tuned: list[SamplingSettings]
    beyond: list[float]
    highest: float

    def __len__(self) -> int:
        return len(self.tried) + len(self.guided) + len(self.tuned)


def dial_settings(resolver: SettingsResolver, config: Compare) -> DialSettings | None:
    """Return the settings to sample; None unless an adapter of guidance is to be measured."""
    targets = config.dial_at
    # other objectives teach no guidance, and a full model has no λ
    if not targets or resolver.objective != "guidance" or resolver.full_model:
        return None
    highest = dial_points(resolver.metadata)[-1][0]
    # what this adapter has not learned is no reason to measure nothing
    within = [w for w in targets if w <= highest]
    beyond = [w for w in targets if w > highest]

    def guided(scales: Sequence[float]) -> list[SamplingSettings]:
        return [resolver.resolve("guided", config.steps, guidance=w) for w in scales]

    tuned = [resolver.resolve(f"tuned for {w:g}", config.steps) for w in within]
    tried = guided(scales_to_try(within)) if within else []
    return DialSettings(tried, guided(within), tuned, beyond, highest)


def measure_dial(
    cache: SampleCache, settings: DialSettings, prompts: list[str], seeds: list[int]
) -> dict:
    """Return the scales that were tried, `w`, and a row for each target that is given, `turns`.

    A row has the target w, its λ, the nearest w with its interval over prompts, None if it may lie
    beyond the scales that were tried, and the distance ratio to guided at the target w.
    """

    def latents(settings: SamplingSettings):
        return cache.get_or_sample(settings, prompts, seeds).latents

    scales = [tried.w for tried in settings.tried]
    tried = [latents(settings) for settings in settings.tried]

    def nearest_of_medians(*errors: np.ndarray):
        return nearest(scales, np.array([np.median(values) for values in errors]))

    rows = []
    for guided, tuned in zip(settings.guided, settings.tuned, strict=True):
        [(_, adapter_scale)] = tuned.adapters
        pictures = latents(tuned)
        # latents, not pictures: decoding would round the small differences away
        errors = [by_prompt(latent_mse(pictures, other), prompts) for other in tried]
        low, high = bootstrap_interval(errors, nearest_of_medians)
        target = latents(guided)
        # w = 1 is the base without guidance
        distances = [latent_mse(other, target) for other in (pictures, tried[0])]
        rows.append(
            {
                "target": guided.w,
                "adapter_scale": adapter_scale,
                "w": nearest_of_medians(*errors),
                "low": low,
                "high": high,
                "distance_ratio": ratio_with_interval(*distances, prompts),
            }
        )
    return {
        "w": scales,
        "turns": rows,
        "beyond": settings.beyond,
        "highest": settings.highest,
        "pictures": len(prompts),
    }


def scales_to_try(targets: Sequence[float]) -> list[float]:
    """Return guidance scales from 1 to beyond the largest one that is asked for."""
    # 1.4: the nearest w may be larger than asked, and must lie within the scales
    highest = min(100.0, max(2.0, 1 + 1.4 * (max(targets) - 1)))
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
