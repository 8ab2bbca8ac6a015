"""The end of a training: the adapter or the model saved, loaded back the stock way, described."""

import ctypes
import json
from contextlib import suppress
from dataclasses import asdict

import torch

from ...config import PLACE, Train
from ...files import atomic_folder, remove, write_atomic
from ...launch.launcher import RESULT_FILE
from ...models.lora.metadata import METADATA_FILE
from ...models.lora.saving import save_adapter
from ...models.lora.verification import check_difference, predict_fixed_noise, verify_adapter
from ...run.record import read_metrics
from ...run.run import Run
from ..checkpoint.best import BestWeights
from ..compilation import compile_seconds
from ..memory.estimate import MIB, measured_peak, verifies_in_bf16
from ..monitor.metrics import MetricsLog
from ..objectives import OBJECTIVES
from ..setup import TrainingState
from ..zero import gathered
from .calibration import measure_dial
from .model_card import weights_source, write_card


def finalize(
    config: Train,
    run: Run,
    training: TrainingState,
    best: BestWeights,
    step: int,
    log: MetricsLog,
    accelerator,
):
    """Save the trained weights, check that they load the stock way, and write the result file.

    Every process must call this; the main one saves.
    step: the last one that was taken.
    """
    weights_step = best.apply(step)
    main = accelerator.is_main_process
    metadata = adapter_metadata(config, training, accelerator.num_processes, weights_step)
    metadata["dial"] = measure_dial(config, training, main)
    # at ZeRO 3 all processes gather, although one alone saves
    with gathered(training.parameters):
        stock_difference = save(config, run, training, metadata) if main else 0.0
    gpu = accelerator.device.type == "cuda"
    # after the verification, which may be the peak
    peak = torch.tensor([measured_peak(gpu)], device=accelerator.device)
    peaks = accelerator.gather(peak).tolist()
    if not main:
        return
    log.bar.close()
    result = training_result(config, run, training, accelerator)
    result |= {
        "resumed_from": log.first,
        "last_step": step,
        "weights_step": weights_step,
        "ended_early": best.ending if step < config.steps else None,
        "held_out_loss": held_out_losses(run, weights_step),
        "stock_difference": stock_difference,
    }
    result["weights_source"] = weights_source(result, config.steps)
    write_card(run, config, metadata, result)
    result["measured_mib"] = [round(size / MIB, 1) for size in peaks]
    write_atomic(run.folder / RESULT_FILE, json.dumps(result))
    best.finish()


def adapter_metadata(config: Train, training: TrainingState, processes: int, step: int) -> dict:
    """Return the metadata that are stored with the weights, which are of this step."""
    base = training.base
    objective = OBJECTIVES[config.objective]
    scheduler, spacing = base.sampler(objective.scheduler, objective.timestep_spacing)
    parameters = {name: value for name, value in asdict(config).items() if name not in PLACE}
    highest_w = max(config.guidance_scale, config.guidance_scale_max)
    return {
        "base": base.title,
        "base_origin": base.title if base.origin == base.name else base.origin,
        "base_hash": base.hash,
        "base_options": base.load_options,
        "base_license": base.license,
        "resolution": training.examples.meta["resolution"],
        "objective": config.objective,
        # a student that is not told w learns the mean of its range
        "w_train": (config.guidance_scale + highest_w) / 2,
        "negative": training.examples.meta["negative"],
        "sampling": {
            "guidance_scale": config.guidance_scale if objective.guided else 1.0,
            "scheduler": scheduler,
            "timestep_spacing": spacing,
            "steps": objective.sampling_steps(config),
        },
        "train": parameters | {"num_processes": processes},
        "weights_step": step,
    }


def save(config: Train, run: Run, training: TrainingState, metadata: dict) -> float:
    """Write adapter/ or model/; return how far its predictions differ when it is loaded back."""
    # the folder of an earlier training with another method goes
    if config.method == "full":
        largest = save_model(run, training, metadata)
        remove(run.adapter)
        return largest
    denoiser = training.student.denoiser
    save_adapter(run.adapter, denoiser, metadata)
    release_frozen_weights(denoiser)
    largest = verify_adapter(run.adapter, denoiser, training.base, lean=verifies_in_bf16(config))
    remove(run.model)
    return largest


def release_frozen_weights(denoiser: torch.nn.Module):
    """Free the frozen weights."""
    # the check loads a second denoiser, and both might not fit
    for parameter in denoiser.parameters():
        if parameter.requires_grad:
            continue
        parameter.data = parameter.data.new_empty(0)
        # at ZeRO 3, this process' part of it
        if getattr(parameter, "ds_tensor", None) is not None:
            parameter.ds_tensor.data = parameter.ds_tensor.data.new_empty(0)
    # glibc keeps freed memory until it is asked
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def save_model(run: Run, training: TrainingState, metadata: dict) -> float:
    """Write model/, a whole pipeline in diffusers' layout; return the difference as `save` does."""
    pipe = training.base.pipeline()
    denoiser = training.base.denoiser_of(pipe)
    denoiser.load_state_dict(training.student.denoiser.state_dict())
    with atomic_folder(run.model, replace=True) as folder:
        denoiser.register_to_config(_name_or_path=training.base.title)
        # one file, whatever its size
        pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="1TB")
        write_atomic(folder / METADATA_FILE, json.dumps(metadata, indent=1, sort_keys=True))
    before = predict_fixed_noise(denoiser, training.base)
    # two pipelines might not fit
    del pipe, denoiser
    part = training.base.denoiser_part
    loaded = training.base.classes[part].from_pretrained(
        run.model / part, use_safetensors=True, local_files_only=True
    )
    return check_difference(before, predict_fixed_noise(loaded, training.base), run.model)


def training_result(config: Train, run: Run, training: TrainingState, accelerator) -> dict:
    """Return what the run's record says of a finished training."""
    lines = read_metrics(run.metrics)
    losses = [line["loss"] for line in lines if "loss" in line]
    last_tenth = losses[-max(1, len(losses) // 10) :]
    examples = training.examples
    return {
        "distributed_type": accelerator.distributed_type.value,
        "processes": accelerator.num_processes,
        "zero_stage": config.zero_stage if config.deepspeed else None,
        "launcher": config.launcher,
        "nodes": config.num_nodes,
        "device": str(accelerator.device),
        "compile_seconds": None if config.compile == "off" else compile_seconds(),
        "loss": sum(last_tenth) / len(last_tenth),
        "examples": {
            "own": len(examples.training),
            "prior": len(examples.prior),
            "held_out": len(examples.held_out),
        },
    }


def held_out_losses(run: Run, step: int) -> list[float] | None:
    """Return the first held-out loss and that of a step; None if none was measured."""
    lines = [line for line in read_metrics(run.metrics) if "held_out_loss" in line]
    if not lines:
        return None
    losses = {line["step"]: line["held_out_loss"] for line in lines}
    # a training without an end at a validation has an earlier one
    last = lines[-1]["held_out_loss"]
    return [lines[0]["held_out_loss"], losses.get(step, last)]
