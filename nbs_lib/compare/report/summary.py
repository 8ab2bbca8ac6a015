"""A comparison told: its numbers as text, its figures with what is seen on them."""

from pathlib import Path
from typing import Any

from ...config.contenders import SPLIT_CONTENDER, parse_contender
from ...files import from_project

ALT = {
    "grid": "All pictures in one grid: a row for each contender, a column for each prompt and seed",
    "rates": "How often the right caption comes first, a bar for each contender; the numbers are in the table",
    "frontier": "Quality of each contender against its UNet evaluations; the numbers are in the table",
    "dial": "The guidance scale that each adapter scale amounts to, beside the line 1 + λ (w_train − 1)",
    "differences": "Guided's pictures, tuned's pictures, and maps of where they differ",
    "steps": "The first prompt on its way from noise to a picture, guided and tuned",
    "axes": "Pictures over the axes that were asked for",
}
"""Every figure of a comparison, in words."""


def figure_images(compared: Any, *names: str) -> list[Any]:
    """Those of these figures that there are, for a notebook to display. compared: a Compared."""
    from IPython.display import Image

    found = {name: compared.results["figures"].get(name) for name in names}
    return [Image(compared.folder / file, alt=ALT[name]) for name, file in found.items() if file]


def summary(compared: Any) -> str:
    """The numbers as a table of text, and where the report is. compared: a Compared."""
    results = compared.results
    wide = max(13, 2 + max(map(len, results["contenders"])))
    lines = [
        f"{'':{wide}}{'right caption first':>19}{'CLIP score':>12}{'NFE':>6}{'s a picture':>13}{'MiB':>8}"
    ]
    for name, told in results["contenders"].items():
        rate, score = told["caption_first"], told.get("clip_score")
        shown = (
            f"{_percent(rate['rate'])} [{_percent(rate['low'])}, {_percent(rate['high'])}]"
            if rate
            else "–"
        )
        scored = f"{score['value']:.1f}" if score else "–"
        lines.append(
            f"{name:{wide}}{shown:>19}{scored:>12}{told['nfe']:>6g}{told['seconds']:>13.3g}{told['memory_mib']:>8.0f}"
        )
    recovered = results["guidance_recovered"]
    if recovered:
        interval = (
            f" [{_percent(recovered['low'])}, {_percent(recovered['high'])}]"
            if recovered["low"] is not None
            else ""
        )
        lines.append(f"guidance recovered: {_percent(recovered['value'])}{interval}")
    elif results["contenders"]["guided"]["caption_first"] and results["objective"] != "finetune":
        lines.append(
            "guidance recovered: not defined, for guidance gained nothing on these captions"
        )
    for turn in (results["dial"] or {"turns": []})["turns"]:
        w = f"{turn['w']:.2f}" if turn["w"] is not None else "beyond what was tried"
        lines.append(
            f"λ = {turn['adapter_scale']:g}: nearest to w = {w}, expected {turn['expected']:.2f}"
        )
    lines.append(
        f"tuned takes {results['time_ratio']:.2f} of guided's time and {results['nfe_ratio']:g} of its NFE"
    )
    memory = results["contenders"]["tuned"]["memory_kind"]
    lines.append(
        f"MiB: {memory}; [ , ]: 95 % intervals; w = {results['w_train']:g}, {results['steps']} steps"
    )
    return "\n".join([*lines, f"report: {from_project(compared.report)}"])


def _percent(rate: float) -> str:
    return f"{round(100 * rate)} %"


def describe_contender(name: str, results: dict[str, Any]) -> str:
    """What a contender is, in a few words."""
    who = parse_contender(name)
    how = "".join(
        [
            f", in {who.steps} steps" * bool(who.steps),
            f", on {who.engine}" * (who.engine != "eager"),
        ]
    )
    if who.kind == "base":
        if not who.guided:
            return f"base, w = 1{how}"
        w = f"base, w = {who.scale or results['w_train']:g}"
        return (
            f"{w}, but for the last {100 * (1 - who.guided):.0f} % of the steps{how}"
            if who.guided < 1
            else w + how
        )
    if who.kind != "tuned":
        return " + ".join(f"{Path(folder).name}, λ = {scale:g}" if who.kind == "adapters" else f"pipeline {Path(folder).name}"
                          for folder, scale in who.folders) + how  # fmt: skip
    turn = results["adapter_scale"] if who.adapter_scale is None else who.adapter_scale
    tuned = "all weights trained" if results["whole_model"] else f"base + adapter, λ = {turn:g}"
    return f"{tuned}{how}" if who.guided is None else (
        f"{tuned}, w = {SPLIT_CONTENDER:g} on the first {100 * who.guided:.0f} % of the steps{how}")  # fmt: skip
