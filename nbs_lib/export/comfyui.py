"""An adapter of SD 3's transformer in one file, which ComfyUI and diffusers read alike.

A layer is two tensors, named by its path in diffusers' transformer:
`transformer.PATH.lora_A.weight` [rank, in] and `transformer.PATH.lora_B.weight` [out, rank]; its
weight W becomes W + B A. ComfyUI maps the path to its own layers, where query, key and value are
parts of one weight.

Source: https://github.com/comfyanonymous/ComfyUI, comfy/lora.py and `mmdit_to_diffusers` in
comfy/utils.py; https://github.com/Stability-AI/ModelSpec for the metadata.
"""

import torch
from diffusers import ModelMixin
from peft.tuners.lora import LoraLayer

from .kohya import effective_alpha

ARCHITECTURE = "stable-diffusion-3"


@torch.no_grad()
def comfyui_weights(transformer: ModelMixin) -> dict[str, torch.Tensor]:
    """Return the tensors of the only adapter on the transformer, fp32 on the CPU.

    Errors: ExportError for DoRA.
    """
    weights = {}
    for path, layer in transformer.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        [down] = layer.lora_A.values()
        [up] = layer.lora_B.values()
        # without an alpha both programs apply the product as it is
        scale = effective_alpha(layer) / len(down.weight)
        weights[f"transformer.{path}.lora_A.weight"] = down.weight.float().cpu().contiguous()
        weights[f"transformer.{path}.lora_B.weight"] = (
            (up.weight.float() * scale).cpu().contiguous()
        )
    return weights


def comfyui_metadata(title: str, pixels: int) -> dict[str, str]:
    """Return the header that ModelSpec defines.

    title: name of the adapter
    pixels: side of the pictures that it was trained on
    """
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{ARCHITECTURE}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{pixels}x{pixels}",
    }
