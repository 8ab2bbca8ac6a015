"""What is told of an export: as plain values, and as its README.md."""

import json
from typing import Any

from ..adapter import read_facts
from ..contenders import CONTENDERS
from ..run import Run, RunError
from ..usage import example, quoted, sampling, usage

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
WHAT = {
    "diffusers": "{kind} on `{base}` for diffusers",
    "kohya": "{kind} on `{base}` for A1111 and ComfyUI",
    "merged": "`{base}` with {kind_small} merged into it, a whole pipeline for diffusers",
}
KOHYA = (
    "Put `{name}.safetensors` into `models/Lora` of A1111 or `models/loras` of ComfyUI, and set the CFG scale to "
    "{guidance_scale:g}."
)


def told(run: Run) -> dict[str, Any]:
    """What is known of a run's adapter: what training recorded in it, and the numbers of the comparison, if there is one.

    Errors: FileNotFoundError without an adapter.
    """
    facts = {"base": "a base that is not recorded"} | read_facts(run.adapter)
    train = facts.get("train", {})
    objective = facts.get("objective", "guidance")
    own = {"name": run.name, "objective": objective, "usage": usage(facts), "train": train}
    return facts | own | {"compared": compared(run)}


def compared(run: Run) -> dict[str, Any] | None:
    """The numbers of compare/results.json; None where there are none, or they are those of another adapter."""
    try:
        run.require("compare")
        if run.altered("train"):
            return None
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
    kind = "DoRA" if facts["train"].get("method") == "dora" else "LoRA"
    values = facts | sampling(facts) | {"kind": f"A {kind}", "kind_small": f"a {kind}"}
    return CARD.format(
        **values,
        quoted_base=quoted(facts["base"]),
        tags="" if to == "merged" else "lora, ",
        what=WHAT[to].format(**values),
        how=KOHYA.format(**values) if to == "kohya" else example(facts, "FOLDER", to == "merged"),
        rows="\n".join(f"| {name} | {value} |" for name, value in _rows(facts)),
    )


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("base", f"`{facts['base']}`"),
        ("base's hash", f"`{facts['base_hash']}`"),
        ("objective", facts["objective"]),
        ("guidance scale of its teacher, or of its pictures", f"{facts['w_train']:g}"),
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
