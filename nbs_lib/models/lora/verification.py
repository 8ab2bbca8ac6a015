"""A check that a saved adapter gives the same predictions as the trained one."""

from pathlib import Path

import torch
from diffusers import ModelMixin

from ..stable_diffusion import StableDiffusion
from .layers import ADAPTER_NAME
from .metadata import LORA_FILE

TOLERANCE = 1e-4  # of the largest prediction


@torch.no_grad()
def verify_adapter(
    folder: Path, trained: ModelMixin, base: StableDiffusion, lean: bool = False
) -> float:
    """Compare a trained adapter with its saved file, loaded by diffusers.

    Returns the largest difference of their predictions on fixed noise.

    lean: keep the base's weights in bf16; not for DoRA, which reads them outside their layers

    Errors: RuntimeError above 1e-4 of the largest prediction
    """
    # one after the other on one denoiser, because a second one might not fit
    denoiser = _as_lean(base.denoiser(torch.bfloat16)) if lean else base.denoiser()
    weights = {name: value for name, value in trained.named_parameters() if "lora_" in name}
    denoiser.add_adapter(trained.peft_config[ADAPTER_NAME], adapter_name=ADAPTER_NAME)
    denoiser.load_state_dict(weights, strict=False)
    # on the same fresh denoiser, because the trained one may be in another precision
    expected = predict_fixed_noise(denoiser, base)
    denoiser.unload_lora()
    # as a user's program does
    base.load_adapter(denoiser, folder / LORA_FILE)
    return check_difference(expected, predict_fixed_noise(denoiser, base), folder / LORA_FILE)


def _as_lean(denoiser: ModelMixin) -> ModelMixin:
    """Return a bf16 denoiser that computes in fp32.

    Each layer has its weight in fp32 only while it works. An adapter on it finds fp32 layers, so
    it is not rounded.
    """
    for module in denoiser.modules():
        has_weight = isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        if has_weight:
            _load_weight_on_use(module)
        for name, parameter in module.named_parameters(recurse=False):
            if not has_weight or name != "weight":
                parameter.data = parameter.data.float()
    return denoiser


def _load_weight_on_use(module: torch.nn.Module):
    weight = module.weight.data
    # of the same shape and of type fp32, but without memory
    placeholder = torch.zeros(1).expand(weight.shape)

    def load(module, _):
        module.weight.data = weight.float()

    def unload(module, *_):
        module.weight.data = placeholder

    module.weight.data = placeholder
    module.register_forward_pre_hook(load)
    module.register_forward_hook(unload)


@torch.no_grad()
def predict_fixed_noise(denoiser: ModelMixin, base: StableDiffusion) -> torch.Tensor:
    """Return the prediction of a denoiser of the base's family on fixed noise, [2, c, 16, 16]."""
    # on the CPU, because generators of devices draw different numbers
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, denoiser.config.in_channels, 16, 16, generator=generator)
    text = base.random_text(2, 8, generator)
    x, context, pooled = (
        None if tensor is None else tensor.to(denoiser.device, denoiser.dtype)
        for tensor in (latents, *text)
    )
    t = torch.tensor([100, 900], device=denoiser.device)
    # in full fp32 on a GPU too, where convolutions round to TF32 by default
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        return base.predict(denoiser.eval(), x, t, context, pooled).float().cpu()


def check_difference(expected: torch.Tensor, actual: torch.Tensor, path: Path) -> float:
    """Return the largest difference of two predictions.

    path: the file of the second one's weights, for the error

    Errors: RuntimeError above TOLERANCE times the largest prediction
    """
    largest = float((expected - actual).abs().max())
    size = float(expected.abs().max())
    # not `largest > …`, which is false for NaN
    if not largest <= TOLERANCE * size:
        raise RuntimeError(
            f"{path} does not load back: predictions differ by {largest:.2g} of {size:.2g}"
        )
    return largest
