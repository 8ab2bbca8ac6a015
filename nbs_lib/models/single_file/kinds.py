"""The kinds of checkpoints in one file, told apart by the names of their weights."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from ..checks.headers import FLOATS, Header, Weights
from ..components import BaseError
from ..consistency import extra_channels

DENOISER = "model.diffusion_model."
VAE = ("first_stage_model.",)
CLIP_L = ("cond_stage_model.transformer.",)
OPEN_CLIP = ("cond_stage_model.model.",)
XL_CLIP_L = ("conditioner.embedders.0.transformer.",)
XL_OPEN_CLIP = ("conditioner.embedders.1.model.",)
MAX_WEIGHTS = 10_000
# Names that ComfyUI writes beside the weights of an SDXL that predicts v, or with noise of EDM.
V_PREDICTION = "v_pred"
ZERO_SNR = "ztsnr"
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max")
# Names under which programs record the prediction, and their word for v.
METADATA = ("modelspec.prediction_type", "modelspec.predict_key")
# In SD 2.x the last block of a UNet that predicts v has larger biases than one that predicts the
# noise. Source: ComfyUI, comfy/supported_models.py, SD20.model_type.
PROBE = f"{DENOISER}output_blocks.11.1.transformer_blocks.0.norm1.bias"
LEAST_V_DEVIATION = 0.09


class Kind(NamedTuple):
    """A kind of checkpoint.

    title: for errors
    config: the folder of its settings in `configs/`
    prefixes: beginnings of the names of each component's weights
    first_layer: of the denoiser, which reads the latents
    channels: of the latents
    """

    title: str
    config: str
    prefixes: dict[str, tuple[str, ...]]
    first_layer: str = f"{DENOISER}input_blocks.0.0.weight"
    channels: int = 4


UNET_AND_VAE = {"unet": (DENOISER,), "vae": VAE}
SD1 = Kind("SD 1.x", "sd1", UNET_AND_VAE | {"text_encoder": CLIP_L})
SD2 = Kind("SD 2.x", "sd2", UNET_AND_VAE | {"text_encoder": OPEN_CLIP})
SDXL = Kind(
    "SDXL", "sdxl", UNET_AND_VAE | {"text_encoder": XL_CLIP_L, "text_encoder_2": XL_OPEN_CLIP}
)
SD3_PARTS = {
    "transformer": (DENOISER,),
    "vae": VAE,
    "text_encoder": ("text_encoders.clip_l.transformer.",),
    "text_encoder_2": ("text_encoders.clip_g.transformer.",),
}
X_EMBEDDER = f"{DENOISER}x_embedder.proj.weight"
SD3 = Kind("SD 3", "sd3", SD3_PARTS, X_EMBEDDER, channels=16)
SD35_MEDIUM = Kind("SD 3.5 medium", "sd35-medium", SD3_PARTS, X_EMBEDDER, channels=16)
SD35_LARGE = Kind("SD 3.5 large", "sd35-large", SD3_PARTS, X_EMBEDDER, channels=16)
# T5 has a third of a file's bytes or more, and the base is one without it.
T5 = ("text_encoders.t5xxl.",)
ALLOWED = "allowed is a whole SD 1.x, SD 2.x, SDXL or SD 3 in one safetensors file"
# Beginnings of names that only another kind of file has, and what that file is.
OTHERS = {
    "lora_": "a LoRA",
    "transformer.": "a LoRA or a transformer alone",
    "unet.": "a LoRA",
    "control_model.": "a ControlNet",
    f"{DENOISER}double_blocks.": "a FLUX",
    "conditioner.embedders.0.model.": "an SDXL refiner",
}


def kind_of(name: str, header: Header) -> Kind:
    """Return the kind of a checkpoint. name: of the base, for errors. Errors: BaseError."""
    weights = header.weights
    # real ones have 3,000; conversions look through all names for each block
    if len(weights) > MAX_WEIGHTS:
        raise BaseError(
            f"base {name!r} has {len(weights)} weights, allowed are {MAX_WEIGHTS}; {ALLOWED}"
        )
    for prefix, title in OTHERS.items():
        if _any_begins(weights, (prefix,)):
            raise BaseError(f"base {name!r} is {title}; {ALLOWED}")
    if any(edm in weights for edm in EDM):
        raise BaseError(f"base {name!r} has the noise levels of EDM, not DDPM's; {ALLOWED}")
    kind = _by_names(weights)
    missing = [part for part, names in kind.prefixes.items() if not _any_begins(weights, names)]
    if missing or kind.first_layer not in weights:
        parts = ", ".join(missing or ["first layer"])
        raise BaseError(f"base {name!r} is no whole checkpoint, it lacks its {parts}; {ALLOWED}")
    _check_channels(name, weights[kind.first_layer][0], kind.channels)
    return kind


def _by_names(weights: Weights) -> Kind:
    if _any_begins(weights, (f"{DENOISER}joint_blocks.",)):
        # 3.5 normalises queries and keys, and its medium size attends twice
        if any(".x_block.attn2." in weight for weight in weights):
            return SD35_MEDIUM
        return SD35_LARGE if any(".attn.ln_q." in weight for weight in weights) else SD3
    if _any_begins(weights, XL_OPEN_CLIP):
        return SDXL
    return SD2 if _any_begins(weights, OPEN_CLIP) else SD1


def has_t5(weights: Weights) -> bool:
    """Return True if a checkpoint has SD 3's third text encoder, which is not converted."""
    return _any_begins(weights, T5)


def _any_begins(weights: Weights, prefixes: tuple[str, ...]) -> bool:
    return any(weight.startswith(prefixes) for weight in weights)


def _check_channels(name: str, shape: tuple[int, ...], latents: int):
    channels = shape[1] if len(shape) == 4 else 0
    if channels > latents:
        reason = extra_channels(channels, latents)
        raise BaseError(f"base {name!r} cannot be used: {reason}")


def dtype_of(name: str, weights: Weights, kind: Kind, part: str) -> torch.dtype:
    """Return the widest type that a component's weights have. Errors: BaseError."""
    types = {
        stored
        for weight, (shape, stored) in weights.items()
        # old text encoders have a buffer of integers
        if weight.startswith(kind.prefixes[part]) and not weight.endswith("position_ids")
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
    # a flow has one prediction
    if "transformer" in kind.prefixes or not _predicts_v(kind, path, header):
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
