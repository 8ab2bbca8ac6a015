"""A UNet that holds its guidance, marked so that stock pipelines sample it in one pass."""

import torch
from diffusers import UNet2DConditionModel

WIDTH = 256
"""Of the embedding of the guidance scale, as latent consistency models have it."""


def mark_guidance_as_embedded(unet: UNet2DConditionModel):
    """Give a UNet the layer by which diffusers' pipelines know that it holds its guidance, with weights of zero.

    A pipeline guides only where `time_cond_proj_dim` is None; where it is set, it gives the guidance scale to this layer.
    Zeros make nothing of it: the predictions are the same bits at any scale.
    Source: arXiv 2310.04378, sec. 3.3; `do_classifier_free_guidance` of diffusers' pipelines.
    """
    first = unet.time_embedding.linear_1
    layer = torch.nn.Linear(
        WIDTH, first.in_features, bias=False, device=first.weight.device, dtype=first.weight.dtype
    )
    torch.nn.init.zeros_(layer.weight)
    unet.time_embedding.cond_proj = layer.requires_grad_(False)
    unet.register_to_config(time_cond_proj_dim=WIDTH)
