"""An adapter in kohya's format, which A1111 and ComfyUI read.

A layer is three tensors, named by its path in the UNet with `_` for `.`: `lora_unet_PATH.lora_down.weight` [rank, in]
(of a convolution [rank, in, k, k]), `.lora_up.weight` [out, rank] (or [out, rank, 1, 1]) and `.alpha` []; its weight W
becomes W + (alpha / rank) up · down.

Source: https://github.com/kohya-ss/sd-scripts, networks/lora.py; https://github.com/Stability-AI/ModelSpec for the metadata.
"""

from collections import Counter
from collections.abc import Iterable

import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer

from ..models import StableDiffusion

FAMILIES = {
    768: ("sd_v1", "stable-diffusion-v1"),
    1024: ("sd_v2", "stable-diffusion-v2-512"),
    2048: ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
}
"""Stable Diffusion's versions as kohya and ModelSpec name them, by the width of their text embeddings."""
V_PREDICTION = {
    "sd_v1": "sd_v1_v",
    "sd_v2": "sd_v2_v",
    "stable-diffusion-v2-512": "stable-diffusion-v2-768-v",
}


class ExportError(RuntimeError):
    """An export that was not made: why, and what to do."""


@torch.no_grad()
def kohya_weights(
    unet: UNet2DConditionModel, trained_alpha: float | None
) -> dict[str, torch.Tensor]:
    """The tensors of the one adapter on the UNet, fp32 on the CPU.

    Each layer's rank and scale are those that the loader found in the adapter's file. They may differ from layer to layer,
    and the scale may have been folded into the weights; here all layers have one alpha, that of the training where it is
    known, and `lora_up` takes the rest. One, since diffusers 0.42 loses the alpha of an attention layer where it differs
    from the others'. Errors: ExportError for DoRA.
    """
    layers = {path: layer for path, layer in unet.named_modules() if isinstance(layer, LoraLayer)}
    own = {}  # the alpha with which a layer's weights are as they stand
    for path, layer in layers.items():
        [adapter] = layer.lora_A
        if adapter in layer.lora_magnitude_vector:
            raise ExportError(
                "the adapter is a DoRA: diffusers leaves out its magnitudes (kohya's dora_scale), and ComfyUI applies them to "
                "other norms than it was trained with, so no kohya file draws its pictures; export it to diffusers or merged"
            )
        own[path] = layer.scaling[adapter] * layer.r[adapter]
    alpha = trained_alpha or Counter(own.values()).most_common(1)[0][0]
    found = {}
    for path, layer in layers.items():
        [down], [up] = layer.lora_A.values(), layer.lora_B.values()
        name = f"lora_unet_{path.replace('.', '_')}"
        found[f"{name}.lora_down.weight"] = down.weight.float().cpu().contiguous()
        found[f"{name}.lora_up.weight"] = (
            (up.weight.float() * (own[path] / alpha)).cpu().contiguous()
        )
        found[f"{name}.alpha"] = torch.tensor(float(alpha))
    return found


def kohya_metadata(
    weights: dict[str, torch.Tensor], width: int, base: StableDiffusion, title: str, pixels: int
) -> dict[str, str]:
    """What sd-scripts and ModelSpec say in a file's header.

    width: of the base's text embeddings, which tells its version; pixels: a side of the pictures that it was trained on.
    """
    v = base.prediction_type == "v_prediction"
    version, architecture = FAMILIES.get(width, ("", "stable-diffusion"))
    if v:
        version, architecture = (V_PREDICTION.get(name, name) for name in (version, architecture))
    known = (
        {"ss_base_model_version": version, "ss_v2": str(version.startswith("sd_v2"))}
        if version
        else {}
    )
    return known | {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": _same(
            value.shape[0] for key, value in weights.items() if key.endswith("lora_down.weight")
        ),
        "ss_network_alpha": _same(
            float(value) for key, value in weights.items() if key.endswith(".alpha")
        ),
        "ss_sd_model_name": base.name,
        "ss_output_name": title,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{pixels}x{pixels}",
        "modelspec.prediction_type": "v" if v else "epsilon",
    }


def _same(values: Iterable[float]) -> str:
    """The value of all layers; sd-scripts writes `Dynamic` where they differ."""
    found = set(values)
    return f"{found.pop():g}" if len(found) == 1 else "Dynamic"
