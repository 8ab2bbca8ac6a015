"""Everything that DeepSpeed is told: its settings by ZeRO stage, and whole weights out of their parts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import DeepSpeedPlugin
from accelerate.utils import patch_environment
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

from ..config import Train
from ..models._torch_fixes import quote_torch_libraries

BUCKET = 2**24
"""Numbers that DeepSpeed is told to reduce or gather at once."""
LIVE = 2**26
"""Weights that a process may hold beyond its own part at stage 3."""
BLOCKS = (BasicTransformerBlock, ResnetBlock2D)
"""What ZeRO 3 gathers at once. As it is, it gathers layer by layer, with hooks that take longer than small layers."""


def _probe_in_silence():
    """Have DeepSpeed try now what this machine can compile and link, which it does when it is first used: a linker's complaint
    of what it cannot, which is nothing amiss, would be in every notebook, for what silences it elsewhere fails there."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        from deepspeed import ops

        _ = ops.__compatible_ops__
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _know_muon():
    """DeepSpeed looks at its optimizer Muon whatever the optimizer is, and has torch load its compiler for that, in each
    process, unless torch is told to compile nothing."""
    with patch_environment(torchdynamo_disable="1"):
        from deepspeed.runtime.zero.muon import muon_optimizer  # noqa: F401


def deepspeed_plugin(config: Train) -> DeepSpeedPlugin:
    quote_torch_libraries()  # DeepSpeed has torch compile its extension
    _probe_in_silence()
    _know_muon()
    clip = (
        config.max_grad_norm if config.zero_stage or config.mixed_precision == "fp16" else 0.0
    )  # see `clip_at_step`
    plugin = DeepSpeedPlugin(
        zero_stage=config.zero_stage,
        gradient_clipping=clip,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        offload_optimizer_device="cpu" if config.offload else "none",
        zero3_init_flag=False,
    )
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.batch_size
    plugin.deepspeed_config["gradient_clipping"] = (
        clip  # of 0 the plugin makes none, for which accelerate puts 1 in
    )
    if config.zero_stage:
        plugin.deepspeed_config["zero_optimization"] |= _sent_at_once(config.zero_stage)
    # torch's own optimizer there too: DeepSpeed's for the CPU rounds in another way once it was resumed
    plugin.deepspeed_config["zero_force_ds_cpu_optimizer"] = False
    plugin.deepspeed_config["zero_allow_untested_optimizer"] = True  # Prodigy is one
    if config.mixed_precision == "fp16":
        plugin.deepspeed_config["torch_autocast"] = {"enabled": True, "dtype": "float16"}
    return plugin


def _sent_at_once(stage: int) -> dict:
    """What DeepSpeed sends among the processes, or holds of it, at a time. As it is, gradients on a GPU are gathered for
    reduction in 1.9 GiB, and at stage 3 a whole UNet stays gathered, for its every weight is used again soon."""
    if stage < 3:
        return {"reduce_bucket_size": BUCKET, "allgather_bucket_size": BUCKET}
    return {
        "reduce_bucket_size": BUCKET,
        "stage3_max_live_parameters": LIVE,
        "stage3_max_reuse_distance": LIVE,
        "stage3_param_persistence_threshold": 0,  # small weights would stay whole, gathered one by one after each step
        "leaf_module": {"classes": [f"{block.__module__}.{block.__name__}" for block in BLOCKS]},
    }


def with_a_gradient(unet: torch.nn.Module, given: tuple) -> tuple:
    """Have the latents want a gradient, in a pass that is to have any.

    A block's hook hands its gradients on once that of the block's input is there: of an input that wants none, before there
    are any.
    """
    x_t, *others = given
    return (x_t.detach().requires_grad_(torch.is_grad_enabled()), *others)


def partitioned(parameters: list[torch.nn.Parameter]) -> bool:
    """Whether each process holds a part of the weights only, as at ZeRO 3."""
    return any(hasattr(parameter, "ds_id") for parameter in parameters)


@contextmanager
def gathered(parameters: list[torch.nn.Parameter], changed: bool = False) -> Iterator[None]:
    """The whole weights in every process for a while. changed: whether they are changed then, in all processes alike.

    Every process must enter it.
    """
    if not partitioned(parameters):
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(parameters, modifier_rank=0 if changed else None):
        yield
