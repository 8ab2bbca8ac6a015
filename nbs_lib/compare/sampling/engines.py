"""Engines that evaluate a contender's denoiser, each checked against eager's predictions.

eager      the denoiser as it is
compile    torch.compile: on a GPU of the whole denoiser, as a CUDA graph for each size; on a CPU of
           the blocks that it repeats, which are compiled in a fraction of the time
deepspeed  deepspeed.init_inference, without the kernels that it injects into pipelines in fp16
"""

import logging

import torch
from diffusers import ModelMixin
from torch.utils._pytree import tree_map_only

from ...models import StableDiffusion
from ...models._imports import import_deepspeed
from ...models._torch_compilers import compile_blocks, quote_torch_libraries
from ...models.lora.verification import predict_fixed_noise

# The largest difference from eager's predictions on fixed noise, as a share of the largest one.
# An engine rounds in other places; fp16 has 11 bits, bf16 has 8.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def on_engine(denoiser: ModelMixin, engine: str, base: StableDiffusion) -> torch.nn.Module:
    """Return a denoiser of the base's family that the engine evaluates.

    Errors: RuntimeError if its predictions differ from eager's.
    """
    if engine == "eager":
        return denoiser
    # before the engine is set up, because it may change the denoiser
    eager = predict_fixed_noise(denoiser, base)
    dtype = denoiser.dtype
    if engine == "compile":
        # torch's compiler command breaks at a space in its own path
        quote_torch_libraries()
        if denoiser.device.type == "cuda":
            _compile_whole(denoiser)
        else:
            compile_blocks(denoiser, dynamic=True)
    else:
        denoiser = _deepspeed(denoiser)
    difference = float((predict_fixed_noise(denoiser, base) - eager).abs().max())
    largest = float(eager.abs().max())
    # not `>`: a NaN must be refused too
    tolerance = TOLERANCES[dtype]
    if not difference <= tolerance * largest:
        raise RuntimeError(
            f"engine {engine!r}: its predictions are {difference:.2g} of {largest:.2g} from "
            f"eager's; allowed is a share of {tolerance:g}. Leave it out, or take another version"
        )
    return denoiser


def _compile_whole(denoiser: ModelMixin):
    denoiser.compile(dynamic=False, options={"triton.cudagraphs": True})
    run_graph = denoiser._compiled_call_impl

    def call(*inputs, **options):
        torch.compiler.cudagraph_mark_step_begin()
        # the next run of a graph overwrites what it has returned, which some schedulers keep
        return tree_map_only(torch.Tensor, torch.Tensor.clone, run_graph(*inputs, **options))

    denoiser._compiled_call_impl = call


def _deepspeed(denoiser: ModelMixin):
    # imported here, because it takes seconds and few comparisons use it
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import_deepspeed()
    import deepspeed

    return deepspeed.init_inference(denoiser, dtype=denoiser.dtype).module
