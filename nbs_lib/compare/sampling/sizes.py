"""Sizes of pictures that a base can draw: the steps of its networks, and the limits."""

import math
from dataclasses import dataclass

from diffusers import DiffusionPipeline, ModelMixin

STOCK_STEP = 8  # pixels; stock pipelines refuse other sizes, whatever their VAE halves
# Times the side that was trained on: a base knows nothing of what is far from it.
SMALLEST, LARGEST = 0.5, 2


@dataclass(frozen=True)
class PictureSizes:
    """Sides of pictures in pixels: the one that was trained on, and those that can be drawn."""

    trained: int
    step: int  # both sides are multiples of it
    low: int
    high: int

    def check(self, name: str, side: int):
        """Raise ValueError unless pictures can have this side. name: of the side, for the error."""
        if side == self.trained:
            return
        if side % self.step or not self.low <= side <= self.high:
            raise ValueError(
                f"{name}: given {side}; allowed is a multiple of {self.step} "
                f"from {self.low} to {self.high}"
            )


def picture_sizes(
    pipe: DiffusionPipeline, denoiser: ModelMixin, resolution: int | None = None
) -> PictureSizes:
    """Return the sizes that a pipeline can draw.

    denoiser: of the pipeline
    resolution: pixels a side of the pictures that were trained on, None for the base's own
    """
    latent = pipe.vae_scale_factor
    config = denoiser.config
    trained = resolution or config.sample_size * latent
    high = trained * LARGEST
    if "patch_size" in config:
        # a transformer has a position for so many patches of latents
        side = config.patch_size
        high = min(high, config.pos_embed_max_size * side * latent)
    else:
        # each block but the last halves the latents: with other sizes the halves do not fit
        side = 2 ** (len(config.down_block_types) - 1)
    step = math.lcm(STOCK_STEP, latent * side)
    low = max(step, _floor(trained * SMALLEST, step))
    return PictureSizes(trained, step, low, max(step, _floor(high, step)))


def _floor(side: float, step: int) -> int:
    return int(side // step) * step
