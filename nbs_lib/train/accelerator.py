"""What trains in each process: an Accelerator on DeepSpeed, or a plain data-parallel one, and whole weights out of it."""

import io
import os
from contextlib import redirect_stdout
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import DistributedType

from ..config import Train
from .errors import LONGEST, LaunchError
from .zero import deepspeed_plugin, partitioned, with_a_gradient


def new_accelerator(config: Train, folder: Path) -> Accelerator:
    """An Accelerator that is what the parameters say; to be called inside a launched process. folder: of the run.

    Precision is left to the student's own autocast: DeepSpeed's would cast the adapter. Only fp16 is the engine's, which
    then scales the loss. Errors: LaunchError where accelerate gave something else than was asked for.
    """
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[
            name
        ]  # a user's own settings are no parameters of a run, nor are those of accelerate's launch
    gpu = torch.cuda.is_available()
    with redirect_stdout(
        io.StringIO()
    ):  # each process would say in the notebook that DeepSpeed's extension was built
        accelerator = Accelerator(
            cpu=not (
                gpu or config.deepspeed
            ),  # said of a CPU with DeepSpeed, it would drop DeepSpeed without a word
            mixed_precision="fp16"
            if config.mixed_precision == "fp16" and not config.deepspeed
            else "no",
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            deepspeed_plugin=deepspeed_plugin(config) if config.deepspeed else None,
            kwargs_handlers=[
                InitProcessGroupKwargs(backend="nccl" if gpu else "gloo", timeout=LONGEST)
            ],
            log_with="tensorboard" if config.tensorboard else None,
            project_dir=folder,
        )
    wanted, found = int(os.environ["WORLD_SIZE"]), accelerator.distributed_type
    if (
        found == DistributedType.DEEPSPEED
    ) != config.deepspeed or accelerator.num_processes != wanted:
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


def wrap_for_training(
    accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple:
    """The model and the optimizer, wrapped. model: at stage 3 a `Student`.

    accelerate tells transformers of ZeRO 3, which would then load every model in parts, in all processes at once: the main
    process, which loads a pipeline alone to check what was learned, would wait for the others for ever.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    wrapped = accelerator.prepare(model, optimizer)
    unset_hf_deepspeed_config()
    if partitioned(list(model.parameters())):
        model.unet.register_forward_pre_hook(with_a_gradient)
    return wrapped


def clip_at_step(
    optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], largest: float
):
    """Scale the gradients down to a norm of `largest` before each step, and leave the norm where DeepSpeed looks for it.

    At ZeRO 0 DeepSpeed would clip them too, but tell the norm to nobody.
    """

    def clip(optimizer: torch.optim.Optimizer, *_):
        optimizer._global_grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, largest))

    optimizer.register_step_pre_hook(clip)
