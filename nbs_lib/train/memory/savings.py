"""Changes of a training's parameters that save memory."""

from ...config import Train


def memory_savers(config: Train, processes: int) -> list[dict]:
    """Return changes of parameters that save memory, the least costly first."""
    changes: list[dict] = []
    if not config.gradient_checkpointing:
        changes.append({"gradient_checkpointing": True})
    if config.mixed_precision == "fp32":
        changes.append({"mixed_precision": "bf16"})
    if config.batch_size > 1:
        # the same batches in more passes, so the training is the same
        passes = config.batch_size * config.gradient_accumulation_steps
        changes.append({"batch_size": 1, "gradient_accumulation_steps": passes})
    divisible = config.optimizer != "prodigy" and config.mixed_precision != "fp16"
    if config.deepspeed and config.method == "full" and divisible:
        changes.append({"zero_stage": 3})
        if config.optimizer == "adamw":
            changes.append({"offload": True})
    partitioned = config.deepspeed and config.zero_stage == 3
    if config.method in ("lora", "rslora") and not partitioned and config.base_precision == "as_is":
        changes += [{"base_precision": "int8"}, {"base_precision": "nf4"}]
    if processes > 1:
        changes.append({"num_processes": 1})
    return changes
