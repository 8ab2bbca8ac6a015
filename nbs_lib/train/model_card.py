"""The model card beside what was learned."""

from typing import Any

from ..config import Train
from ..files import write_atomic
from ..models.origin import front_matter, license_row
from ..models.sampling_recipe import usage_code, usage_text, warning
from ..run.run import Run

CARD = """{front}
# {name}

{warning}{what}: {usage}.

{example}

| | |
|---|---|
| base | `{base}`, hash `{base_hash:.16}` |
| license | {license} |
{rows}
| loss, mean of its last tenth | {loss:.5f} |
| loaded back by stock diffusers | predictions differ by {stock_difference:.2g} at most |
"""
WHAT = {
    "guidance": "{kind} that makes one UNet pass predict what guidance at w = {w_train:g} needs two passes for",
    "finetune": "{kind} trained on images of its own",
    "consistency": "{kind} that samples in few steps",
}


def write_card(run: Run, config: Train, facts: dict[str, Any], result: dict[str, Any]):
    """Write README.md beside the weights. facts: as recorded with them; result: what the launch left."""
    full = config.method == "full"
    folder = run.model if full else run.adapter
    kind = "A Stable Diffusion" if full else f"A {'DoRA' if config.method == 'dora' else 'LoRA'}"
    values = facts | result | {"name": run.name, "kind": kind}
    tags = [*([] if full else ["lora"]), "text-to-image", "stable-diffusion", config.objective]
    card = CARD.format(
        **values,
        front=front_matter(facts, tags, "finetune" if full else "adapter"),
        warning=warning(facts),
        license=license_row(facts),
        what=WHAT[config.objective].format(**values),
        usage=usage_text(facts),
        example=usage_code(facts, folder.name, full),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows(config, result).items()),
    )
    write_atomic(folder / "README.md", card)


def rows(config: Train, result: dict[str, Any]) -> dict[str, str]:
    """The table of what it was trained with."""
    told = {"objective": config.objective}
    if config.objective != "finetune":
        scales = (
            f"{config.guidance_scale:g} to {config.guidance_scale_max:g}"
            if config.guidance_scale_max
            else f"{config.guidance_scale:g}"
        )
        told["guidance scale of the teacher"] = scales
    if config.method != "full":
        folded = "the scale is folded into the weights"
        told["method"] = (
            f"{config.method}, rank {config.rank}, alpha {config.alpha:g} ({folded}), on {config.target_modules} layers"
        )
    passes = (
        f" × {config.gradient_accumulation_steps}" if config.gradient_accumulation_steps > 1 else ""
    )
    told["steps, batch, learning rate"] = (
        f"{config.steps}, {config.batch_size} × {result['processes']}{passes}, "
        f"{config.learning_rate:g} ({config.optimizer}, {config.lr_scheduler})"
    )
    told["launched as"] = f"{launched_as(result)}, {config.mixed_precision}"
    return told


def launched_as(result: dict[str, Any]) -> str:
    """In words: what trained, on how many processes of how many hosts."""
    engine = (
        "no DeepSpeed"
        if result["zero_stage"] is None
        else f"DeepSpeed, ZeRO {result['zero_stage']}"
    )
    processes = result["processes"]
    hosts = f" on {result['nodes']} hosts" if result["nodes"] > 1 else ""
    return f"{engine}, {processes} process{'es' * (processes > 1)}{hosts}"
