"""What trains in each process: an Accelerator on DeepSpeed, or a plain data-parallel one, and whole weights out of it."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch
from accelerate import Accelerator, DeepSpeedPlugin, InitProcessGroupKwargs
from accelerate.utils import DistributedType, patch_environment
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

from ..config import Train
from ..models._torch_fixes import quote_torch_libraries
from .errors import LaunchError
from .launch.launcher import LONGEST
from .memory.estimate import BUCKET, LIVE

BLOCKS = (BasicTransformerBlock, ResnetBlock2D)
"""What ZeRO 3 gathers at once. As it is, it gathers layer by layer, with hooks that take longer than small layers."""


def new_accelerator(config: Train, folder: Path) -> Accelerator:
    """An Accelerator that is what the parameters say; to be called inside a launched process. folder: of the run.

    Precision is left to the student's own autocast: DeepSpeed's would cast the adapter. Only fp16 is the engine's, which
    then scales the loss. Errors: LaunchError where accelerate gave something else than was asked for.
    """
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]  # a user's own settings are no parameters of a run, nor are those of accelerate's launch
    gpu = torch.cuda.is_available()
    with redirect_stdout(io.StringIO()):  # each process would say in the notebook that DeepSpeed's extension was built
        accelerator = Accelerator(
            cpu=not (gpu or config.deepspeed),  # said of a CPU with DeepSpeed, it would drop DeepSpeed without a word
            mixed_precision="fp16" if config.precision == "fp16" and not config.deepspeed else "no",
            gradient_accumulation_steps=config.accumulate,
            deepspeed_plugin=_deepspeed(config) if config.deepspeed else None,
            kwargs_handlers=[InitProcessGroupKwargs(backend="nccl" if gpu else "gloo", timeout=LONGEST)],
            log_with="tensorboard" if config.tensorboard else None,
            project_dir=folder,
        )
    wanted, found = int(os.environ["WORLD_SIZE"]), accelerator.distributed_type
    if (found == DistributedType.DEEPSPEED) != config.deepspeed or accelerator.num_processes != wanted:
        raise LaunchError(
            f"asked for {'DeepSpeed' if config.deepspeed else 'plain training'} on {wanted} processes, got {found.value} on "
            f"{accelerator.num_processes}; the versions of accelerate and deepspeed are not those of constraints.txt"
        )
    if config.tensorboard:
        accelerator.init_trackers("tensorboard")
    return accelerator


def close_trackers(accelerator: Accelerator):
    """What accelerate's `end_training` does, but for destroying the process groups, which end with their process.

    gloo's destructor waits, with Python's lock held, for its threads, and these may want the lock: some trainings
    hung there on a busy machine, with all done and saved.
    """
    for tracker in accelerator.trackers:
        tracker.finish()


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


def _deepspeed(config: Train) -> DeepSpeedPlugin:
    quote_torch_libraries()  # DeepSpeed has torch compile its extension
    _probe_in_silence()
    _know_muon()
    clip = config.clip if config.zero_stage or config.precision == "fp16" else 0.0  # see `clip_at_step`
    plugin = DeepSpeedPlugin(
        zero_stage=config.zero_stage,
        gradient_clipping=clip,
        gradient_accumulation_steps=config.accumulate,
        offload_optimizer_device="cpu" if config.offload else "none",
        zero3_init_flag=False,
    )
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.batch_size
    plugin.deepspeed_config["gradient_clipping"] = clip  # of 0 the plugin makes none, for which accelerate puts 1 in
    if config.zero_stage:
        plugin.deepspeed_config["zero_optimization"] |= _sent_at_once(config.zero_stage)
    # torch's own optimizer there too: DeepSpeed's for the CPU rounds in another way once it was resumed
    plugin.deepspeed_config["zero_force_ds_cpu_optimizer"] = False
    plugin.deepspeed_config["zero_allow_untested_optimizer"] = True  # Prodigy is one
    if config.precision == "fp16":
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


def prepared(accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple:
    """The model and the optimizer, wrapped. model: at stage 3 a `Student`.

    accelerate tells transformers of ZeRO 3, which would then load every model in parts, in all processes at once: the main
    process, which loads a pipeline alone to check what was learned, would wait for the others for ever.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    wrapped = accelerator.prepare(model, optimizer)
    unset_hf_deepspeed_config()
    if partitioned(list(model.parameters())):
        model.unet.register_forward_pre_hook(_with_a_gradient)
    return wrapped


def _with_a_gradient(unet: torch.nn.Module, given: tuple) -> tuple:
    """Have the latents want a gradient, in a pass that is to have any.

    A block's hook hands its gradients on once that of the block's input is there: of an input that wants none, before there
    are any.
    """
    x_t, *others = given
    return (x_t.detach().requires_grad_(torch.is_grad_enabled()), *others)


def clip_at_step(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], largest: float):
    """Scale the gradients down to a norm of `largest` before each step, and leave the norm where DeepSpeed looks for it.

    At ZeRO 0 DeepSpeed would clip them too, but tell the norm to nobody.
    """

    def clip(optimizer: torch.optim.Optimizer, *_):
        optimizer._global_grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, largest))

    optimizer.register_step_pre_hook(clip)


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
