"""DeepSpeed's settings by ZeRO stage, and whole weights gathered from their parts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import DeepSpeedPlugin
from accelerate.utils import patch_environment
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch.nn import Parameter

from ..config import Train
from ..models._imports import import_deepspeed

# Numbers that DeepSpeed reduces or gathers at once.
BUCKET_SIZE = 2**24
# Weights that a process may hold beyond its own part at stage 3.
MAX_LIVE_WEIGHTS = 2**26
# Blocks that ZeRO 3 gathers as one.
# By default it gathers layer by layer, with hooks that take longer than small layers.
LEAF_BLOCKS = (BasicTransformerBlock, JointTransformerBlock, ResnetBlock2D)


def deepspeed_plugin(config: Train) -> DeepSpeedPlugin:
    """Return accelerate's plugin with all that DeepSpeed needs for these parameters."""
    _compile_nothing()
    _import_muon()
    # at ZeRO 0 without a loss scaler, `clip_at_step` clips
    engine_clips = config.zero_stage or config.engine_scales_loss
    max_norm = config.max_grad_norm if engine_clips else 0.0
    plugin = DeepSpeedPlugin(
        zero_stage=config.zero_stage,
        gradient_clipping=max_norm,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        offload_optimizer_device="cpu" if config.offload else "none",
        zero3_init_flag=False,
    )
    settings = plugin.deepspeed_config
    settings["train_micro_batch_size_per_gpu"] = config.batch_size
    # the plugin leaves out a clipping of 0, and accelerate would fill in 1
    settings["gradient_clipping"] = max_norm
    if config.zero_stage:
        settings["zero_optimization"] |= _transfer_sizes(config.zero_stage)
    # torch's optimizer on the CPU too: DeepSpeed's rounds differently after it was resumed
    settings["zero_force_ds_cpu_optimizer"] = False
    # Prodigy is untested
    settings["zero_allow_untested_optimizer"] = True
    if config.engine_scales_loss:
        settings["torch_autocast"] = {"enabled": True, "dtype": "float16"}
    return plugin


def _compile_nothing():
    """Tell DeepSpeed that this machine can compile none of its extensions."""
    # it would compile deepspeed_shm_comm for a CPU, which takes half a minute, for the one operator
    # inference_all_reduce of its tensor-parallel inference; a training's collectives are gloo's
    import_deepspeed()
    from deepspeed import ops

    ops.__compatible_ops__ = {}


def _import_muon():
    """Import DeepSpeed's Muon without torch's compiler."""
    # DeepSpeed looks at it whatever the optimizer is, and each process would load the compiler
    with patch_environment(torchdynamo_disable="1"):
        from deepspeed.runtime.zero.muon import muon_optimizer  # noqa: F401


def _transfer_sizes(stage: int) -> dict:
    """Return DeepSpeed's settings of what it sends or holds at once."""
    # by default, gradients on a GPU are reduced in buckets of 1.9 GiB
    if stage < 3:
        return {"reduce_bucket_size": BUCKET_SIZE, "allgather_bucket_size": BUCKET_SIZE}
    return {
        "reduce_bucket_size": BUCKET_SIZE,
        # by default a whole denoiser stays gathered, because each weight is soon used again
        "stage3_max_live_parameters": MAX_LIVE_WEIGHTS,
        "stage3_max_reuse_distance": MAX_LIVE_WEIGHTS,
        # small weights would stay whole, and be gathered one by one after each step
        "stage3_param_persistence_threshold": 0,
        "leaf_module": {
            "classes": [f"{block.__module__}.{block.__name__}" for block in LEAF_BLOCKS]
        },
    }


def require_input_gradient(denoiser: torch.nn.Module, inputs: tuple) -> tuple:
    """Set requires_grad on the input latents, in a pass that has gradients; a forward pre-hook.

    ZeRO 3 reduces a block's gradients when the gradient of its input arrives. An input without one
    would trigger it before there are any.
    """
    x_t, *others = inputs
    return (x_t.detach().requires_grad_(torch.is_grad_enabled()), *others)


def partitioned(parameters: list[Parameter]) -> bool:
    """Return True if each process holds only a part of the weights, as at ZeRO 3."""
    return any(hasattr(parameter, "ds_id") for parameter in parameters)


@contextmanager
def gathered(parameters: list[Parameter], modified: bool = False) -> Iterator[None]:
    """Hold the whole weights in every process for a while; every process must enter it.

    modified: True if all processes change them alike in the meantime.
    """
    if not partitioned(parameters):
        yield
        return
    # here: a training without DeepSpeed does not load it
    from deepspeed.runtime.zero import GatheredParameters

    # with a modifier, rank 0's values replace those of the others at the end
    with GatheredParameters(parameters, modifier_rank=0 if modified else None):
        yield
