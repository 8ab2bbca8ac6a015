"""Engines that evaluate a contender's denoiser, each checked against eager's predictions.

eager      the denoiser as it is
compile    torch.compile of the blocks that a denoiser repeats: as fast as compiling all of it, and
           compiled in a fraction of the time
deepspeed  deepspeed.init_inference. Its injected kernels are for pipelines in fp16 only; a
           comparison samples in fp32, and so without them
"""

import logging

import torch
from diffusers import ModelMixin

from ...models import StableDiffusion
from ...models._torch_fixes import quote_torch_libraries
from ...models.lora.verification import predict_fixed_noise

# The largest difference from eager's predictions on fixed noise, as a share of the largest one.
TOLERANCE = 1e-3


def on_engine(denoiser: ModelMixin, engine: str, base: StableDiffusion) -> torch.nn.Module:
    """Return a denoiser of the base's family that the engine evaluates.

    Errors: RuntimeError if its predictions differ from eager's.
    """
    if engine == "eager":
        return denoiser
    # before the engine is set up, because it may change the denoiser
    eager = predict_fixed_noise(denoiser, base)
    if engine == "compile":
        # torch's compiler command breaks at a space in its own path
        quote_torch_libraries()
        _compile_blocks(denoiser)
    else:
        denoiser = _deepspeed(denoiser)
    difference = float((predict_fixed_noise(denoiser, base) - eager).abs().max())
    largest = float(eager.abs().max())
    # not `>`: a NaN must be refused too
    if not difference <= TOLERANCE * largest:
        raise RuntimeError(
            f"engine {engine!r}: its predictions are {difference:.2g} of {largest:.2g} from "
            f"eager's; allowed is a share of {TOLERANCE:g}. Leave it out, or take another version"
        )
    return denoiser


def _compile_blocks(denoiser: ModelMixin):
    """Compile the blocks that a denoiser repeats."""
    if denoiser._repeated_blocks:
        denoiser.compile_repeated_blocks(dynamic=True)
        return
    # diffusers names none of SD 3's transformer
    for block in denoiser.transformer_blocks:
        block.compile(dynamic=True)


def _deepspeed(denoiser):
    # imported here, because it takes seconds and few comparisons use it
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed

    return deepspeed.init_inference(denoiser, dtype=denoiser.dtype).module
