"""The Accelerator of each process, on DeepSpeed or on plain data parallelism, and what it wraps."""

import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import DistributedType
from torch.nn import Parameter
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..config import Train
from ..launch.errors import COLLECTIVE_TIMEOUT, LaunchError
from .zero import deepspeed_plugin, partitioned, require_input_gradient


def new_accelerator(config: Train, folder: Path) -> Accelerator:
    """Return an Accelerator as the parameters say; for a launched process only.

    folder: of the run.
    Errors: LaunchError if accelerate gives another engine or another process count.
    """
    # a user's own settings are no parameters of a run, nor are those of accelerate's launch
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    gpu = torch.cuda.is_available()
    # the student has its own autocast, because DeepSpeed's would cast the adapter;
    # only a loss scale may be the engine's
    engine_fp16 = config.engine_scales_loss and not config.deepspeed
    process_group = InitProcessGroupKwargs(
        backend="nccl" if gpu else "gloo", timeout=COLLECTIVE_TIMEOUT
    )
    # each process would print into the notebook that it has built DeepSpeed's extension
    with redirect_stdout(io.StringIO()):
        accelerator = Accelerator(
            # with cpu=True accelerate would silently drop DeepSpeed
            cpu=not gpu and not config.deepspeed,
            mixed_precision="fp16" if engine_fp16 else "no",
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            deepspeed_plugin=deepspeed_plugin(config) if config.deepspeed else None,
            kwargs_handlers=[process_group],
            log_with=config.trackers or None,
            # where TensorBoard's tracker writes
            project_dir=folder / "trackers" / "tensorboard",
        )
    _check_engine(accelerator, config)
    return accelerator


def _check_engine(accelerator: Accelerator, config: Train):
    """Check the engine and the process count, which accelerate changes without a warning."""
    processes = int(os.environ["WORLD_SIZE"])
    engine = accelerator.distributed_type
    same_engine = (engine == DistributedType.DEEPSPEED) == config.deepspeed
    if same_engine and accelerator.num_processes == processes:
        return
    raise LaunchError(
        f"asked for {'DeepSpeed' if config.deepspeed else 'plain training'} on {processes} "
        f"processes, got {engine.value} on {accelerator.num_processes}; the versions of "
        "accelerate and deepspeed are not those of constraints.txt"
    )


def wrap_for_training(
    accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple:
    """Return the model and the optimizer as accelerate wraps them. model: at ZeRO 3 a `Student`."""
    wrapped = accelerator.prepare(model, optimizer)
    # accelerate tells transformers of ZeRO 3, which would then load every model in parts, in all
    # processes at once: the main process loads a pipeline alone to verify the adapter, and would
    # wait for the others for ever
    unset_hf_deepspeed_config()
    if partitioned(list(model.parameters())):
        model.denoiser.register_forward_pre_hook(require_input_gradient)
    return wrapped


def clip_gradients(accelerator: Accelerator, training: Any, max_norm: float) -> Any:
    """Clip the gradients; return their norm before, a number or a tensor, None if it is unknown.

    training: the `TrainingState`. DeepSpeed's engine has clipped already.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # not accelerate's: it waits for the number on the GPU in each step
        return training.engine.get_global_grad_norm()
    return accelerator.clip_grad_norm_(training.parameters, max_norm)


def clip_at_step(optimizer: torch.optim.Optimizer, parameters: list[Parameter], max_norm: float):
    """Clip the gradients to a norm of `max_norm` before each step of the optimizer."""

    def clip(optimizer: torch.optim.Optimizer, *_):
        # where DeepSpeed looks for the norm; at ZeRO 0 it would clip too, but tell nobody the norm
        optimizer._global_grad_norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    optimizer.register_step_pre_hook(clip)
