"""An adapter in kohya's format, which A1111 and ComfyUI read.

A layer is three tensors, named by its path in the UNet with `_` for `.`:
`lora_unet_PATH.lora_down.weight` [rank, in] (of a convolution [rank, in, k, k]),
`.lora_up.weight` [out, rank] (or [out, rank, 1, 1]) and `.alpha` []; its weight W becomes
W + (alpha / rank) up · down.

Source: https://github.com/kohya-ss/sd-scripts, networks/lora.py;
https://github.com/Stability-AI/ModelSpec for the metadata.
"""

from collections.abc import Iterable
from statistics import mode

import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer

from ..models import StableDiffusion

# Stable Diffusion's versions as kohya and ModelSpec name them, by the text embeddings' width
FAMILIES = {
    768: ("sd_v1", "stable-diffusion-v1"),
    1024: ("sd_v2", "stable-diffusion-v2-512"),
    2048: ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
}
V_PREDICTION = {
    "sd_v1": "sd_v1_v",
    "sd_v2": "sd_v2_v",
    "stable-diffusion-v2-512": "stable-diffusion-v2-768-v",
}


class ExportError(RuntimeError):
    """An export that cannot be made: why, and what to do."""


@torch.no_grad()
def kohya_weights(
    unet: UNet2DConditionModel, trained_alpha: float | None
) -> dict[str, torch.Tensor]:
    """Return the tensors of the only adapter on the UNet, fp32 on the CPU.

    Each layer's rank and scale are those that the loader found in the adapter's file: they may
    differ from layer to layer, and the scale may have been folded into the weights.

    trained_alpha: alpha of the training, None if it is not known

    Errors: ExportError for DoRA.
    """
    layers = {path: layer for path, layer in unet.named_modules() if isinstance(layer, LoraLayer)}
    # the alpha with which a layer's weights need no change
    alphas = {path: effective_alpha(layer) for path, layer in layers.items()}
    # all layers get one alpha, and lora_up the difference: diffusers 0.42 loses the alpha of an
    # attention layer if it differs from the others'
    alpha = float(trained_alpha or mode(alphas.values()))
    weights = {}
    for path, layer in layers.items():
        [down] = layer.lora_A.values()
        [up] = layer.lora_B.values()
        name = f"lora_unet_{path.replace('.', '_')}"
        weights[f"{name}.lora_down.weight"] = down.weight.float().cpu().contiguous()
        scaled = up.weight.float() * (alphas[path] / alpha)
        weights[f"{name}.lora_up.weight"] = scaled.cpu().contiguous()
        weights[f"{name}.alpha"] = torch.tensor(alpha)
    return weights


def effective_alpha(layer: LoraLayer) -> float:
    """Return the alpha that a layer's weights need no change for. Errors: ExportError for DoRA."""
    # unpacked like this, a second adapter on the layer is an error
    [adapter] = layer.lora_A
    if adapter in layer.lora_magnitude_vector:
        raise ExportError(
            "the adapter is a DoRA: diffusers leaves out its magnitudes (kohya's dora_scale), and "
            "ComfyUI applies them to other norms than it was trained with, so no kohya file draws "
            "its pictures; export it to diffusers or merged"
        )
    return layer.scaling[adapter] * layer.r[adapter]


def kohya_metadata(
    weights: dict[str, torch.Tensor], width: int, base: StableDiffusion, title: str, pixels: int
) -> dict[str, str]:
    """Return the header that sd-scripts and ModelSpec define.

    weights: see `kohya_weights`
    width: of the base's text embeddings, which tells its version
    title: name of the adapter
    pixels: side of the pictures that it was trained on
    """
    # the keys of the header are those that A1111 and ComfyUI read
    predicts_v = base.prediction_type == "v_prediction"
    version, architecture = FAMILIES.get(width, ("", "stable-diffusion"))
    if predicts_v:
        version = V_PREDICTION.get(version, version)
        architecture = V_PREDICTION.get(architecture, architecture)
    # of an unknown version nothing is claimed
    metadata = {}
    if version:
        metadata["ss_base_model_version"] = version
        metadata["ss_v2"] = str(version.startswith("sd_v2"))
    downs = [value for key, value in weights.items() if key.endswith("lora_down.weight")]
    alphas = [value for key, value in weights.items() if key.endswith(".alpha")]
    return metadata | {
        # the convention of safetensors for weights of PyTorch
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": _common_value(down.shape[0] for down in downs),
        "ss_network_alpha": _common_value(map(float, alphas)),
        "ss_sd_model_name": base.name,
        "ss_output_name": title,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{pixels}x{pixels}",
        "modelspec.prediction_type": "v" if predicts_v else "epsilon",
    }


def _common_value(values: Iterable[float]) -> str:
    """Return the value of all layers, or `Dynamic`, which sd-scripts writes if they differ."""
    # :g, because sd-scripts writes whole numbers without a point
    distinct = set(values)
    return f"{distinct.pop():g}" if len(distinct) == 1 else "Dynamic"
