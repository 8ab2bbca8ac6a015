"""The card of an export: its values, and its README.md."""

import json
from collections.abc import Iterable

from ..config.contenders import CONTENDERS
from ..models.checks.headers import FileError, read_header
from ..models.lora.checks import AdapterError
from ..models.lora.compatibility import unsupported_layers
from ..models.lora.metadata import LORA_FILE, load_metadata
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

{warning}{title}: {usage}.

{text}

| | |
|---|---|
{rows}
"""
TITLES = {
    "diffusers": "{kind} on `{base}` for diffusers alone",
    "kohya": "{kind} on `{base}` for A1111, ComfyUI and sd-scripts",
    "merged": "`{base}` with {kind_small} merged into it, a whole pipeline for diffusers",
}
PROGRAMS = (
    "Which export is for which program: `kohya` for ComfyUI, A1111 and sd-scripts, `diffusers` for "
    "`load_lora_weights` of diffusers, `merged` for all that load a whole pipeline in diffusers' "
    f"layout. ComfyUI does not know the names in `{LORA_FILE}`: it says `lora key not loaded`, and "
    "draws the base's pictures."
)
# for adapters of SD 3's transformer
TRANSFORMER_TITLES = TITLES | {"kohya": "{kind} on `{base}` for ComfyUI and diffusers"}
TRANSFORMER_PROGRAMS = (
    "Which export is for which program: `kohya` for ComfyUI, in one file of the run's name; "
    "`diffusers` for `load_lora_weights` of diffusers, whose file ComfyUI reads as well; `merged` "
    "for all that load a whole pipeline in diffusers' layout, whose transformer's file ComfyUI "
    "reads from `models/diffusion_models`. A1111 and sd-scripts have other layouts of this model."
)
COMFYUI = (
    "Put `{name}.safetensors` into `models/loras` of ComfyUI, and set the CFG scale to "
    "{guidance_scale:g}."
)
UNGUIDED = "diffusers leaves guidance out of this pipeline by itself, whatever `guidance_scale` is."
MISSING_LAYERS = (
    "**{program} does not load {count} of this adapter's layers ({layers}), and gives no error: "
    "its pictures differ there. Take the merged export for it (`onepass export RUN --to merged`), "
    "or train again: `target_modules` leaves these layers out now.**"
)
KOHYA = (
    "Put `{name}.safetensors` into `models/Lora` of A1111 or `models/loras` of ComfyUI, and set "
    "the CFG scale to {guidance_scale:g}."
)


def export_metadata(run: Run, layers: Iterable[str]) -> dict:
    """Return what is known of a run's adapter: its training, its use, and its comparison.

    layers: of the base's denoiser, to find those that other programs miss; () to find none

    Errors: FileNotFoundError without an adapter; AdapterError if it is damaged.
    """
    # another program's adapter does not record its base
    facts = {"base": "a base that is not recorded"} | load_metadata(run.adapter)
    try:
        keys = read_header(run.adapter / LORA_FILE).weights
    except FileError as failure:
        raise AdapterError(run.adapter, failure) from None
    # the layers that this adapter changes
    adapted = {key.partition(".")[2].partition(".lora_")[0] for key in keys}
    missed = {}
    for program, names in unsupported_layers(layers).items():
        if missing := [name for name in names if name in adapted]:
            missed[program] = missing
    return facts | {
        "name": run.name,
        "objective": facts.get("objective", "guidance"),
        "usage": usage_text(facts),
        "train": facts.get("train", {}),
        "layers_missed": missed,
        # the keys begin with the denoiser's name in its pipeline
        "transformer": any(key.startswith("transformer.") for key in keys),
        "compared": comparison_results(run),
    }


def comparison_results(run: Run) -> dict | None:
    """Return the numbers of compare/results.json, None if they are not this adapter's."""
    try:
        run.require("compare")
        # the numbers are of an adapter that was replaced by hand
        if run.altered("train"):
            return None
        results = json.loads((run.compare / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RunError):
        return None
    contenders = results["contenders"]
    rates = {name: contenders[name]["caption_first"] for name in contenders}
    # an older comparison has no fidelity; fine-tuning learns images, not guidance
    fidelity = contenders["tuned"].get("fidelity")
    if results.get("objective") == "finetune":
        fidelity = None
    names = ("steps", "scheduler", "adapter_scale", "guidance_recovered", "time_ratio", "nfe_ratio")
    return {name: results[name] for name in names} | {
        "nfe": {name: contenders[name]["nfe"] for name in contenders},
        # without a scoring model there are no rates
        "caption_first": rates if all(rates.values()) else None,
        "fidelity": fidelity,
        "measured_on": results.get("measured_on"),
    }


def export_card(to: str, facts: dict) -> str:
    """Return README.md of an export. facts: see `export_metadata`."""
    kind = kind_of_adapter(facts)
    # one mapping for all texts of the card
    values = (
        facts | sampling_recipe(facts) | {"kind": kind, "kind_small": kind.replace("A", "a", 1)}
    )
    # a merged export is no LoRA any more
    tags = card_tags(facts)[to == "merged" :]
    relation = "finetune" if to == "merged" else "adapter"
    if to == "kohya":
        instruction = COMFYUI if facts["transformer"] else KOHYA
        text = [instruction.format(**values), *missing_layer_warnings(facts)]
    else:
        text = [usage_code(facts, "FOLDER", to == "merged")]
    # diffusers has no such mark for a transformer
    if to == "merged" and holds_guidance(facts) and not facts["transformer"]:
        text.append(UNGUIDED)
    titles = TRANSFORMER_TITLES if facts["transformer"] else TITLES
    programs = TRANSFORMER_PROGRAMS if facts["transformer"] else PROGRAMS
    return CARD.format(
        **values,
        front=front_matter(facts, tags, relation),
        warning=warning(facts),
        title=titles[to].format(**values),
        text="\n\n".join([*text, programs]),
        rows="\n".join(f"| {name} | {value} |" for name, value in card_rows(facts)),
    )


def kind_of_adapter(facts: dict) -> str:
    """Return the kind of an adapter, at the beginning of a sentence."""
    return "A DoRA" if facts["train"].get("method") == "dora" else "A LoRA"


def card_tags(facts: dict) -> list[str]:
    """Return the tags by which the hub sorts adapters."""
    return ["lora", "text-to-image", "stable-diffusion", facts["objective"]]


def missing_layer_warnings(facts: dict) -> list[str]:
    """Return a sentence for each program that does not load all layers of the adapter."""
    warnings = []
    for program, names in facts["layers_missed"].items():
        layers = ", ".join(f"`{name}`" for name in names)
        warnings.append(MISSING_LAYERS.format(program=program, count=len(names), layers=layers))
    return warnings


def card_rows(facts: dict) -> list[tuple[str, str]]:
    """Return the names and values of the card's table."""
    rows = [
        ("base", f"`{facts['base']}`"),
        ("base's hash", f"`{facts['base_hash']}`"),
        ("license", license_row(facts)),
        ("objective", facts["objective"]),
        ("guidance scale of its teacher, or of its pictures", f"{facts['w_train']:g}"),
    ]
    # another program's adapter, or an earlier version's, does not say it
    if facts.get("weights_step"):
        rows.append(("weights of step", facts["weights_step"]))
    if facts["compared"]:
        rows += _comparison_rows(facts["compared"])
    parameters = ", ".join(f"{name} = {value}" for name, value in facts["train"].items())
    return [*rows, ("recipe", parameters or "not recorded")]


def _comparison_rows(results: dict) -> list[tuple[str, str]]:
    rows = []
    if rates := results["caption_first"]:
        texts = ", ".join(f"{name} {_percent(rates[name]['rate'])}" for name in CONTENDERS)
        rows.append((f"right caption first, of {rates['tuned']['count']}", texts))
    if recovered := results["guidance_recovered"]:
        rows.append(("guidance recovered", _percent(recovered["value"])))
    rows += _fidelity_rows(results)
    nfe = ", ".join(f"{name} {results['nfe'][name]:g}" for name in CONTENDERS)
    settings = f"{results['steps']} steps, {results['scheduler']}"
    settings += f", adapter scale {results['adapter_scale']:g}"
    rows.append(("denoiser evaluations for one image", f"{nfe} ({settings})"))
    return [*rows, ("time of tuned, of guided's", f"{results['time_ratio']:.2f}")]


def _fidelity_rows(results: dict) -> list[tuple[str, str]]:
    fidelity = results["fidelity"]
    # another size of pictures than the base's has no distances
    if not fidelity or not fidelity["distance_ratio"] or not fidelity["nearer"]:
        return []
    ratio, nearer = fidelity["distance_ratio"], fidelity["nearer"]
    interval = ""
    if ratio["low"] is not None:
        interval = f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return [
        ("distance to guided, of unguided's", f"{ratio['value']:.2f}{interval}"),
        (
            "pictures nearer to guided than unguided's",
            f"{_percent(nearer['rate'])} of {nearer['count']}, of {results['measured_on']}",
        ),
    ]


def _percent(rate: float) -> str:
    return f"{100 * rate:.0f} %"
