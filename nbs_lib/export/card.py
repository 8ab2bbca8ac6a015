"""What is told of an export: as plain values, and as its README.md."""

import json
from typing import Any

from ..adapter import read_facts
from ..compare.sample import CONTENDERS
from ..run import Run, RunError

USAGE = {
    "guidance": "sample with guidance_scale=1; negative prompts have no effect",
    "finetune": "sample it like its base, with guidance",
    "consistency": "sample in 2 to 8 steps with LCMScheduler and guidance_scale=1; negative prompts have no effect",
}
CARD = """---
library_name: diffusers
base_model: {quoted_base}
tags: [{tags}text-to-image, stable-diffusion]
---
# {name}

{what}: {usage}.

{how}

| | |
|---|---|
{rows}
"""
CODE = """```python
from diffusers import DiffusionPipeline, {scheduler}

{load}
pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config)
image = pipe("a prompt", guidance_scale={guidance_scale:g}, num_inference_steps={steps}).images[0]
```"""
WHAT = {
    "diffusers": "A LoRA on `{base}` for diffusers",
    "kohya": "A LoRA on `{base}` for A1111 and ComfyUI",
    "merged": "`{base}` with a LoRA merged into it, a whole pipeline for diffusers",
}
HOW = {
    "diffusers": CODE.replace(
        "{load}", 'pipe = DiffusionPipeline.from_pretrained(BASE)  # {base}\npipe.load_lora_weights("FOLDER")  # this one'
    ),
    "kohya": "Put `{file}` into `models/Lora` of A1111 or `models/loras` of ComfyUI, and set the CFG scale to "
    "{guidance_scale:g}.",
    "merged": CODE.replace("{load}", 'pipe = DiffusionPipeline.from_pretrained("FOLDER")  # this one'),
}


def told(run: Run) -> dict[str, Any]:
    """What is known of a run's adapter: what training recorded in it, and the numbers of the comparison, if there is one.

    Errors: FileNotFoundError without an adapter.
    """
    facts = read_facts(run.adapter)
    train = facts.get("train", {})
    objective = facts.get("objective", "guidance")
    own = {"name": run.name, "objective": objective, "usage": USAGE[objective], "train": train}
    return facts | own | {"compared": compared(run)}


def compared(run: Run) -> dict[str, Any] | None:
    """The numbers of compare/results.json; None where there are none, or they are those of an earlier adapter."""
    try:
        run.require("compare")
        results = json.loads((run.compare / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RunError):
        return None
    rates = {name: told["caption_first"] for name, told in results["contenders"].items()}
    names = ("steps", "scheduler", "adapter_scale", "guidance_recovered", "time_ratio", "nfe_ratio")
    return {name: results[name] for name in names} | {
        "nfe": {name: told["nfe"] for name, told in results["contenders"].items()},
        "caption_first": rates if all(rates.values()) else None,
    }


def card(to: str, facts: dict[str, Any]) -> str:
    """README.md of an export, from what `told` gave."""
    how = {"guidance_scale": 1.0, "scheduler": "DDIMScheduler", "steps": None} | facts.get("sampling", {})
    values = (
        facts
        | how
        | {
            "steps": how["steps"] or 25,
            "quoted_base": json.dumps(facts["base"], ensure_ascii=False),  # YAML takes JSON's quotes
            "file": f"{facts['name']}.safetensors",
            "tags": "" if to == "merged" else "lora, ",
            "rows": "\n".join(f"| {name} | {value} |" for name, value in _rows(facts)),
        }
    )
    return CARD.format(**values, what=WHAT[to].format(**values), how=HOW[to].format(**values))


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("base", f"`{facts['base']}`"),
        ("base's hash", f"`{facts['base_hash']}`"),
        ("objective", facts["objective"]),
        ("guidance scale it was trained for", f"{facts['w_train']:g}"),
    ]
    if numbers := facts["compared"]:
        rows += _compared_rows(numbers)
    recipe = ", ".join(f"{name} = {value}" for name, value in facts["train"].items())
    return rows + [("recipe", recipe or "not recorded")]


def _compared_rows(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if rates := numbers["caption_first"]:
        shown = ", ".join(f"{name} {_percent(rates[name]['rate'])}" for name in CONTENDERS)
        rows.append((f"right caption first, of {rates['tuned']['count']}", shown))
    if recovered := numbers["guidance_recovered"]:
        rows.append(("guidance recovered", _percent(recovered["value"])))
    nfe = ", ".join(f"{name} {numbers['nfe'][name]:g}" for name in CONTENDERS)
    measured = f"{numbers['steps']} steps, {numbers['scheduler']}, adapter scale {numbers['adapter_scale']:g}"
    rows.append(("UNet evaluations for one image", f"{nfe} ({measured})"))
    return rows + [("time of tuned, of guided's", f"{numbers['time_ratio']:.2f}")]


def _percent(rate: float) -> str:
    return f"{100 * rate:.0f} %"
