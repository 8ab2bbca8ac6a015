"""A UNet that holds its guidance, marked so that stock pipelines sample it in one pass."""

import torch
from diffusers import UNet2DConditionModel

# width of the guidance scale's embedding, as latent consistency models have it
WIDTH = 256


def mark_guidance_as_embedded(unet: UNet2DConditionModel):
    """Add the layer by which diffusers' pipelines see that a UNet holds its guidance.

    A pipeline guides only if `time_cond_proj_dim` is None; otherwise it passes the guidance scale
    to this layer.
    Source: arXiv 2310.04378, sec. 3.3; `do_classifier_free_guidance` of diffusers' pipelines.
    """
    first = unet.time_embedding.linear_1
    layer = torch.nn.Linear(
        WIDTH, first.in_features, bias=False, device=first.weight.device, dtype=first.weight.dtype
    )
    # zeros add nothing: the predictions are the same bits at any guidance scale
    torch.nn.init.zeros_(layer.weight)
    unet.time_embedding.cond_proj = layer.requires_grad_(False)
    # the pipelines read the config, the UNet the layer
    unet.register_to_config(time_cond_proj_dim=WIDTH)
