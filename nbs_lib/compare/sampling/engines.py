"""Engines that evaluate a contender's UNet; the predictions of each are checked against eager's.

eager      the UNet as it is
compile    torch.compile of the blocks that a UNet repeats: as fast as compiling all of it, and
           compiled in a fraction of the time
deepspeed  deepspeed.init_inference. Its injected kernels are for pipelines in fp16 only; a
           comparison samples in fp32, and so without them
"""

import logging

import torch
from diffusers import UNet2DConditionModel

from ...models import StableDiffusion
from ...models._torch_fixes import quote_torch_libraries
from ...models.lora.verification import predict_fixed_noise

# The largest difference from eager's predictions on fixed noise, as a share of the largest one.
TOLERANCE = 1e-3


def on_engine(unet: UNet2DConditionModel, engine: str, base: StableDiffusion) -> torch.nn.Module:
    """Return a UNet of the base's family that the engine evaluates.

    Errors: RuntimeError if its predictions differ from eager's.
    """
    if engine == "eager":
        return unet
    # before the engine is set up, because it may change the UNet
    eager = predict_fixed_noise(unet, base)
    if engine == "compile":
        # torch's compiler command breaks at a space in its own path
        quote_torch_libraries()
        unet.compile_repeated_blocks(dynamic=True)
    else:
        unet = _deepspeed(unet)
    difference = float((predict_fixed_noise(unet, base) - eager).abs().max())
    largest = float(eager.abs().max())
    # not `>`: a NaN must be refused too
    if not difference <= TOLERANCE * largest:
        raise RuntimeError(
            f"engine {engine!r}: its predictions are {difference:.2g} of {largest:.2g} from "
            f"eager's; allowed is a share of {TOLERANCE:g}. Leave it out, or take another version"
        )
    return unet


def _deepspeed(unet):
    # imported here, because it takes seconds and few comparisons use it
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed

    return deepspeed.init_inference(unet, dtype=unet.dtype).module
