"""What is told of an export: as plain values, and as its README.md."""

import json
from collections.abc import Iterable
from typing import Any

from ..config.contenders import CONTENDERS
from ..models.checks.headers import FileError, read_header
from ..models.lora import LORA_FILE, load_metadata
from ..models.lora_compatibility import unsupported_layers
from ..models.lora_file import AdapterError
from ..models.origin import front_matter, license_row
from ..models.sampling_recipe import (
    holds_guidance,
    sampling_recipe,
    usage_code,
    usage_text,
    warning,
)
from ..run.run import Run, RunError

CARD = """{front}
# {name}

{warning}{what}: {usage}.

{how}

| | |
|---|---|
{rows}
"""
WHAT = {
    "diffusers": "{kind} on `{base}` for diffusers alone",
    "kohya": "{kind} on `{base}` for A1111, ComfyUI and sd-scripts",
    "merged": "`{base}` with {kind_small} merged into it, a whole pipeline for diffusers",
}
PROGRAMS = (
    "Which export is for which program: `kohya` for ComfyUI, A1111 and sd-scripts, `diffusers` for `load_lora_weights` of "
    "diffusers, `merged` for all that load a whole pipeline in diffusers' layout. ComfyUI does not know the names in "
    f"`{LORA_FILE}`: it says `lora key not loaded`, and draws the base's pictures."
)
UNGUIDED = "diffusers leaves guidance out of this pipeline by itself, whatever `guidance_scale` is."
MISSED = (
    "**{program} does not load {count} of this adapter's layers ({layers}), and gives no error: its pictures differ there. "
    "Take the merged export for it (`onepass export RUN --to merged`), or train again: `target_modules` leaves these layers "
    "out now.**"
)
KOHYA = (
    "Put `{name}.safetensors` into `models/Lora` of A1111 or `models/loras` of ComfyUI, and set the CFG scale to "
    "{guidance_scale:g}."
)


def export_metadata(run: Run, layers: Iterable[str]) -> dict[str, Any]:
    """What is known of a run's adapter: what training recorded in it, which of its layers other programs miss, and the
    numbers of the comparison, if there is one.

    layers: of the base's UNet. Errors: FileNotFoundError without an adapter; AdapterError where it is damaged.
    """
    facts = {"base": "a base that is not recorded"} | load_metadata(run.adapter)
    train = facts.get("train", {})
    objective = facts.get("objective", "guidance")
    own = {"name": run.name, "objective": objective, "usage": usage_text(facts), "train": train}
    try:
        keys = read_header(run.adapter / LORA_FILE).weights
    except FileError as failure:
        raise AdapterError(run.adapter, failure) from None
    put = {key.removeprefix("unet.").partition(".lora_")[0] for key in keys}
    missed = {
        program: [name for name in names if name in put]
        for program, names in unsupported_layers(layers).items()
    }
    own["layers_missed"] = {program: names for program, names in missed.items() if names}
    return facts | own | {"compared": comparison_lines(run)}


def comparison_lines(run: Run) -> dict[str, Any] | None:
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


def export_card(to: str, facts: dict[str, Any]) -> str:
    """README.md of an export, from what `told` gave."""
    kind = "DoRA" if facts["train"].get("method") == "dora" else "LoRA"
    values = facts | sampling_recipe(facts) | {"kind": f"A {kind}", "kind_small": f"a {kind}"}
    tags = [
        *([] if to == "merged" else ["lora"]),
        "text-to-image",
        "stable-diffusion",
        facts["objective"],
    ]
    how = [KOHYA.format(**values) if to == "kohya" else usage_code(facts, "FOLDER", to == "merged")]
    how += missed_sentences(facts) if to == "kohya" else []
    how += [UNGUIDED] if to == "merged" and holds_guidance(facts) else []
    how += [PROGRAMS]
    return CARD.format(
        **values,
        front=front_matter(facts, tags, "finetune" if to == "merged" else "adapter"),
        warning=warning(facts),
        what=WHAT[to].format(**values),
        how="\n\n".join(how),
        rows="\n".join(f"| {name} | {value} |" for name, value in _rows(facts)),
    )


def missed_sentences(facts: dict[str, Any]) -> list[str]:
    """Return a sentence for each program that does not load all layers of the adapter."""
    return [
        MISSED.format(
            program=program, count=len(layers), layers=", ".join(f"`{layer}`" for layer in layers)
        )
        for program, layers in facts["layers_missed"].items()
    ]


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("base", f"`{facts['base']}`"),
        ("base's hash", f"`{facts['base_hash']}`"),
        ("license", license_row(facts)),
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
