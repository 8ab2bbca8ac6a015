"""The end of a training: the adapter or the model saved, loaded back the stock way, and described."""

import json
from dataclasses import asdict

from diffusers import UNet2DConditionModel

from ..adapter import FACTS, difference_of, save_adapter, verify
from ..config import PLACE, Train
from ..files import beside, read_lines, remove, write_atomic
from ..run import Run
from .card import write_card
from .engine import gathered
from .launch import RESULT
from .log import Log
from .objectives import OBJECTIVES
from .parts import Parts


def finish(config: Train, run: Run, parts: Parts, log: Log, accelerator):
    """Save what was learned, check that it loads the stock way, and leave what the parent wants to know.

    Every process must call this; the main one does it.
    """
    if parts.ema:
        with gathered(parts.parameters, changed=True):
            parts.ema.copy_to(parts.parameters)
    with gathered(parts.parameters):
        if accelerator.is_main_process:
            log.bar.close()
            _finish(config, run, parts, log.first, accelerator)


def _finish(config: Train, run: Run, parts: Parts, first: int, accelerator):
    how, base, unet = OBJECTIVES[config.objective], parts.base, parts.student.unet
    facts = {
        "base": base.title,
        "base_origin": base.title if base.origin == base.name else base.origin,
        "base_hash": base.hash,
        "resolution": parts.examples.meta["resolution"],
        "objective": config.objective,
        # of several, a student that is not told which one learns the mean
        "w_train": (config.guidance + max(config.guidance, config.guidance_max)) / 2,
        "negative": parts.examples.meta["negative"],
        "sampling": {"guidance_scale": config.guidance if how.guided else 1.0, "scheduler": how.scheduler, "steps": how.steps},
        "train": {name: value for name, value in asdict(config).items() if name not in PLACE}
        | {"processes": accelerator.num_processes},
    }
    if config.method == "full":
        difference = save_model(run, parts, facts)
        remove(run.adapter)  # of an earlier training, with another method
    else:
        save_adapter(run.adapter, unet, facts)
        difference = verify(run.adapter, unet, base)
        remove(run.model)
    lines = read_lines(run.metrics)
    losses = [line["loss"] for line in lines if "loss" in line]
    recent = losses[-max(1, len(losses) // 10) :]
    held_out = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    result = {
        "distributed_type": accelerator.distributed_type.value,
        "processes": accelerator.num_processes,
        "zero_stage": config.zero_stage if config.deepspeed else None,
        "launcher": config.launcher,
        "nodes": config.num_nodes,
        "resumed_from": first,
        "device": str(accelerator.device),
        "loss": sum(recent) / len(recent),
        "examples": {name: len(getattr(parts.examples, name)) for name in ("own", "prior", "held_out")},
        "held_out_loss": [held_out[0], held_out[-1]] if held_out else None,
        "stock_difference": difference,
    }
    write_card(run, config, facts, result)
    write_atomic(run.folder / RESULT, json.dumps(result))


def save_model(run: Run, parts: Parts, facts: dict) -> float:
    """Write model/, a whole pipeline in diffusers' layout; the largest difference of its predictions when loaded back."""
    pipe = parts.base.pipeline()
    pipe.unet.load_state_dict(parts.student.unet.state_dict())
    with beside(run.model, replace=True) as folder:
        pipe.unet.register_to_config(_name_or_path=parts.base.title)
        pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="1TB")  # one file, whatever its size
        write_atomic(folder / FACTS, json.dumps(facts, indent=1, sort_keys=True))
    fresh = UNet2DConditionModel.from_pretrained(run.model / "unet", use_safetensors=True, local_files_only=True)
    return difference_of(pipe.unet, fresh, parts.base, run.model)
