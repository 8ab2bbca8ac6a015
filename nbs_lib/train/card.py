"""The model card beside what was learned."""

from typing import Any

from ..config import Train
from ..files import write_atomic
from ..run import Run

CARD = """---
library_name: diffusers
base_model: {base}
tags: [{tags}]
---
# {name}

{what}

```python
{code}
```

| | |
|---|---|
| base | `{base}`, hash `{base_hash:.16}` |
{rows}
| last loss | {loss:.5f} |
| loaded back by stock diffusers | predictions differ by {stock_difference:.2g} at most |
"""
WHAT = {
    "guidance": "{kind} that makes one UNet pass predict what guidance at w = {w_train:g} needs two passes for. "
    "Sample with `guidance_scale=1`; negative prompts have no effect. With another scale it is guided twice.",
    "finetune": "{kind} trained on images of its own. Sample it like its base, with guidance.",
    "consistency": "{kind} that samples in 2 to 8 steps with `LCMScheduler` and `guidance_scale=1`; negative prompts have no "
    "effect.",
}


def write_card(run: Run, config: Train, facts: dict[str, Any], result: dict[str, Any]):
    """Write README.md beside the weights. facts: as recorded with them; result: what the launch left."""
    full = config.method == "full"
    kind = "A Stable Diffusion" if full else f"A {'DoRA' if config.method == 'dora' else 'LoRA'}"
    values = facts | result | {"name": run.name, "kind": kind}
    tags = [*([] if full else ["lora"]), "text-to-image", "stable-diffusion", config.objective]
    card = CARD.format(
        **values,
        tags=", ".join(tags),
        what=WHAT[config.objective].format(**values),
        code=example(facts, full),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows(config, result).items()),
    )
    write_atomic((run.model if full else run.adapter) / "README.md", card)


def example(facts: dict[str, Any], full: bool) -> str:
    """How a stock pipeline samples it, as Python."""
    how = facts["sampling"]
    lines = [f"from diffusers import DiffusionPipeline, {how['scheduler']}", ""]
    if full:
        lines += ['pipe = DiffusionPipeline.from_pretrained("model")']
    else:
        lines += [
            f"pipe = DiffusionPipeline.from_pretrained(BASE)  # {facts['base']}",
            'pipe.load_lora_weights("adapter")',
        ]
    lines += [f"pipe.scheduler = {how['scheduler']}.from_config(pipe.scheduler.config)"]
    call = f"guidance_scale={how['guidance_scale']:g}, num_inference_steps={how['steps'] or 25}"
    return "\n".join([*lines, f'image = pipe("a prompt", {call}).images[0]'])


def rows(config: Train, result: dict[str, Any]) -> dict[str, str]:
    """The table of what it was trained with."""
    told = {"objective": config.objective}
    if config.objective != "finetune":
        scales = f"{config.guidance:g} to {config.guidance_max:g}" if config.guidance_max else f"{config.guidance:g}"
        told["guidance scale of the teacher"] = scales
    if config.method != "full":
        folded = "the scale is folded into the weights"
        told["method"] = f"{config.method}, rank {config.rank}, alpha {config.alpha:g} ({folded}), on {config.targets} layers"
    passes = f" × {config.accumulate}" if config.accumulate > 1 else ""
    told["steps, batch, learning rate"] = (
        f"{config.steps}, {config.batch_size} × {result['processes']}{passes}, "
        f"{config.lr:g} ({config.optimizer}, {config.schedule})"
    )
    told["launched as"] = (
        f"{result['distributed_type']}, ZeRO {result['zero_stage']}, {result['processes']} processes, {config.precision}"
    )
    return told
