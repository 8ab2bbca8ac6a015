"""The kinds of checkpoints in one file, told apart by the names of their weights."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from ..checks.headers import FLOATS, Header, Weights
from ..components import BaseError
from ..consistency import extra_channels

UNET = "model.diffusion_model."
FIRST_LAYER = f"{UNET}input_blocks.0.0.weight"
# Beginnings of the names of each component's weights.
PREFIXES = {
    "unet": (UNET,),
    "vae": ("first_stage_model.",),
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
    ),
    "text_encoder_2": ("conditioner.embedders.1.model.",),
}
LATENT_CHANNELS = 4
# Names that ComfyUI writes beside the weights of an SDXL that predicts v, or with noise of EDM.
V_PREDICTION = "v_pred"
ZERO_SNR = "ztsnr"
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max")
# Names under which programs record the prediction, and their word for v.
METADATA = ("modelspec.prediction_type", "modelspec.predict_key")
# In SD 2.x the last block of a UNet that predicts v has larger biases than one that predicts the
# noise. Source: ComfyUI, comfy/supported_models.py, SD20.model_type.
PROBE = f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
LEAST_V_DEVIATION = 0.09


class Kind(NamedTuple):
    """A kind of checkpoint.

    title: for errors
    config: the folder of its settings in `configs/`
    parts: its components with weights
    """

    title: str
    config: str
    parts: tuple[str, ...]


ONE_TEXT_ENCODER = ("unet", "vae", "text_encoder")
SD1 = Kind("SD 1.x", "sd1", ONE_TEXT_ENCODER)
SD2 = Kind("SD 2.x", "sd2", ONE_TEXT_ENCODER)
SDXL = Kind("SDXL", "sdxl", (*ONE_TEXT_ENCODER, "text_encoder_2"))
ALLOWED = "allowed is a whole SD 1.x, SD 2.x or SDXL in one safetensors file"
# Beginnings of names that only another kind of file has, and what that file is.
OTHERS = {
    "lora_": "a LoRA",
    "transformer.": "a LoRA or a transformer alone",
    "unet.": "a LoRA",
    "control_model.": "a ControlNet",
    f"{UNET}joint_blocks.": "a Stable Diffusion 3",
    f"{UNET}double_blocks.": "a FLUX",
    "conditioner.embedders.0.model.": "an SDXL refiner",
}


def kind_of(name: str, header: Header) -> Kind:
    """Return the kind of a checkpoint. name: of the base, for errors. Errors: BaseError."""
    weights = header.weights
    for prefix, title in OTHERS.items():
        if _any_begins(weights, (prefix,)):
            raise BaseError(f"base {name!r} is {title}; {ALLOWED}")
    if any(edm in weights for edm in EDM):
        raise BaseError(f"base {name!r} has the noise levels of EDM, not DDPM's; {ALLOWED}")
    kind = SD1
    if _any_begins(weights, PREFIXES["text_encoder_2"]):
        kind = SDXL
    elif _any_begins(weights, ("cond_stage_model.model.",)):
        kind = SD2
    missing = [part for part in kind.parts if not _any_begins(weights, PREFIXES[part])]
    if missing or FIRST_LAYER not in weights:
        parts = ", ".join(missing or ["unet"])
        raise BaseError(f"base {name!r} is no whole checkpoint, it lacks its {parts}; {ALLOWED}")
    _check_channels(name, weights[FIRST_LAYER][0])
    return kind


def _any_begins(weights: Weights, prefixes: tuple[str, ...]) -> bool:
    return any(weight.startswith(prefixes) for weight in weights)


def _check_channels(name: str, shape: tuple[int, ...]):
    channels = shape[1] if len(shape) == 4 else 0
    if channels > LATENT_CHANNELS:
        reason = extra_channels(channels, LATENT_CHANNELS)
        raise BaseError(f"base {name!r} cannot be used: {reason}")


def dtype_of(name: str, weights: Weights, part: str) -> torch.dtype:
    """Return the widest type that a component's weights have. Errors: BaseError."""
    types = {
        kind
        for weight, (shape, kind) in weights.items()
        # old text encoders have a buffer of integers
        if weight.startswith(PREFIXES[part]) and not weight.endswith("position_ids")
    }
    if not types <= set(FLOATS):
        others = ", ".join(sorted(types - set(FLOATS)))
        raise BaseError(
            f"base {name!r}: its {part} has weights of type {others}; allowed are "
            f"{', '.join(FLOATS)}, so give the file that was not quantised"
        )
    if len(types) > 1 or not types <= {"F16", "BF16"}:
        return torch.float32
    return torch.float16 if types == {"F16"} else torch.bfloat16


def schedule_settings(kind: Kind, path: Path, header: Header) -> dict[str, Any]:
    """Return the settings of the noise schedule that differ from the kind's own."""
    if not _predicts_v(kind, path, header):
        return {}
    settings: dict[str, Any] = {"prediction_type": "v_prediction"}
    if ZERO_SNR in header.weights:
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return settings


def _predicts_v(kind: Kind, path: Path, header: Header) -> bool:
    if V_PREDICTION in header.weights:
        return True
    for key in METADATA:
        if key in header.metadata:
            return header.metadata[key].strip().lower().startswith("v")
    if kind is not SD2 or PROBE not in header.weights:
        return False
    with safe_open(path, "pt") as file:
        deviation = file.get_tensor(PROBE).float().std(correction=0)
    return float(deviation) > LEAST_V_DEVIATION
