"""The end of a training: the adapter or the model saved, loaded back the stock way, and described."""

import ctypes
import json
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from ..config import PLACE, Train
from ..files import atomic_folder, remove, write_atomic
from ..models.lora import METADATA_FILE, save_adapter
from ..models.lora_verification import check_difference, predict_fixed_noise, verify_adapter
from ..run.record import read_metrics
from ..run.run import Run
from .launch.launcher import RESULT
from .memory.estimate import MIB, measured_peak
from .model_card import write_card
from .monitor.metrics import MetricsLog
from .objectives import OBJECTIVES
from .setup import TrainingState
from .zero import gathered


def finalize(config: Train, run: Run, parts: TrainingState, log: MetricsLog, accelerator):
    """Save what was learned, check that it loads the stock way, and leave what the parent wants to know.

    Every process must call this; the main one does it.
    """
    if parts.ema:
        with gathered(parts.parameters, changed=True):
            parts.ema.copy_to(parts.parameters)
    main, facts = (
        accelerator.is_main_process,
        adapter_metadata(config, parts, accelerator.num_processes),
    )
    with gathered(parts.parameters):
        largest = save(config, run, parts, facts) if main else 0.0
    peak = torch.tensor(
        [measured_peak(accelerator.device.type == "cuda")], device=accelerator.device
    )
    peaks = accelerator.gather(peak).tolist()
    if main:
        log.bar.close()
        result = result_of(config, run, parts, accelerator) | {
            "resumed_from": log.first,
            "stock_difference": largest,
        }
        write_card(run, config, facts, result)
        write_atomic(
            run.folder / RESULT,
            json.dumps(result | {"measured_mib": [round(each / MIB, 1) for each in peaks]}),
        )


def adapter_metadata(config: Train, parts: TrainingState, processes: int) -> dict[str, Any]:
    """What is recorded with the weights."""
    base, how = parts.base, OBJECTIVES[config.objective]
    return {
        "base": base.title,
        "base_origin": base.title if base.origin == base.name else base.origin,
        "base_hash": base.hash,
        "base_license": base.license,
        "resolution": parts.examples.meta["resolution"],
        "objective": config.objective,
        # of several, a student that is not told which one learns the mean
        "w_train": (config.guidance_scale + max(config.guidance_scale, config.guidance_scale_max))
        / 2,
        "negative": parts.examples.meta["negative"],
        "sampling": {
            "guidance_scale": config.guidance_scale if how.guided else 1.0,
            "scheduler": how.scheduler,
            "steps": how.steps,
        },
        "train": {name: value for name, value in asdict(config).items() if name not in PLACE}
        | {"num_processes": processes},
    }


def save(config: Train, run: Run, parts: TrainingState, facts: dict[str, Any]) -> float:
    """Write adapter/ or model/; the largest difference of its predictions when loaded back."""
    if config.method == "full":
        largest = save_model(run, parts, facts)
        remove(run.adapter)  # of an earlier training, with another method
        return largest
    unet = parts.student.unet
    save_adapter(run.adapter, unet, facts)
    release_models(unet)
    # where training kept the base in bf16, so does the check, or the peak of the memory would be here
    largest = verify_adapter(
        run.adapter,
        unet,
        parts.base,
        lean=config.mixed_precision == "bf16" and config.method != "dora",
    )
    remove(run.model)
    return largest


def release_models(unet: UNet2DConditionModel):
    """Free the frozen weights, for the check loads a UNet of its own, and two might not fit."""
    for frozen in (each for each in unet.parameters() if not each.requires_grad):
        frozen.data = frozen.data.new_empty(0)
        if getattr(frozen, "ds_tensor", None) is not None:  # at ZeRO 3, this process' part of it
            frozen.ds_tensor.data = frozen.ds_tensor.data.new_empty(0)
    with suppress(AttributeError, OSError):  # glibc keeps what was freed until it is asked
        ctypes.CDLL(None).malloc_trim(0)


def save_model(run: Run, parts: TrainingState, facts: dict[str, Any]) -> float:
    """Write model/, a whole pipeline in diffusers' layout; the largest difference of its predictions when loaded back."""
    pipe = parts.base.pipeline()
    pipe.unet.load_state_dict(parts.student.unet.state_dict())
    with atomic_folder(run.model, replace=True) as folder:
        pipe.unet.register_to_config(_name_or_path=parts.base.title)
        pipe.save_pretrained(
            folder, safe_serialization=True, max_shard_size="1TB"
        )  # one file, whatever its size
        write_atomic(folder / METADATA_FILE, json.dumps(facts, indent=1, sort_keys=True))
    was = predict_fixed_noise(pipe.unet, parts.base)
    del pipe
    fresh = UNet2DConditionModel.from_pretrained(
        run.model / "unet", use_safetensors=True, local_files_only=True
    )
    return check_difference(was, predict_fixed_noise(fresh, parts.base), run.model)


def result_of(config: Train, run: Run, parts: TrainingState, accelerator) -> dict[str, Any]:
    """What came of it."""
    lines = read_metrics(run.metrics)
    losses = [line["loss"] for line in lines if "loss" in line]
    recent = losses[-max(1, len(losses) // 10) :]
    held_out = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    return {
        "distributed_type": accelerator.distributed_type.value,
        "processes": accelerator.num_processes,
        "zero_stage": config.zero_stage if config.deepspeed else None,
        "launcher": config.launcher,
        "nodes": config.num_nodes,
        "device": str(accelerator.device),
        "loss": sum(recent) / len(recent),
        "examples": {
            name: len(getattr(parts.examples, name)) for name in ("own", "prior", "held_out")
        },
        "held_out_loss": [held_out[0], held_out[-1]] if held_out else None,
    }
