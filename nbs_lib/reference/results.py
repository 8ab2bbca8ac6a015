"""The results of the recipes, from benchmarks/results."""

import json
from functools import cache
from typing import Any

from ..files import ROOT
from ..project import EMBEDDED_BASES
from .markdown import prose, table

RESULTS = ROOT / "benchmarks" / "results"
HEAD = ("contender", "right caption first", "NFE", "s a picture")
# the commands that write the results of recipes which have no file of their own name
FRONTIER = "make bench-lab"
FEW_STEPS = "make bench-few-steps"
# by recipe, which of the benchmark's contenders the recipe itself compares
OF_FEW_STEPS = {
    "four-steps": ("unguided", "guided", "four-steps"),
    "few-steps": (
        "unguided",
        "guided",
        "few-steps in 8 steps",
        "few-steps",
        "few-steps in 2 steps",
        "few-steps in 1 step",
    ),
}
MAIN_JOB = ("demo", "demo-long")


def outcome(recipe: str) -> str:
    """Return what a recipe came to as Markdown, with the command that measures it; "" if never."""
    if recipe == "frontier":
        result = read("lab")
        facts = f"{minutes(result['frontier']['seconds'])} from start to report"
        return _text(FRONTIER, result, [facts], result["frontier"]["contenders"])
    if recipe in OF_FEW_STEPS:
        return _few_steps(recipe)
    if (RESULTS / f"{recipe}.json").is_file():
        command = "make bench" if recipe in MAIN_JOB else "make bench-recipes"
        result = read(recipe)
        return _text(command, result, _facts(result), result["contenders"])
    return ""


@cache  # several tables of a page read the same file
def read(name: str) -> dict[str, Any]:
    """Return a file of benchmarks/results by its stem."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def _few_steps(recipe: str) -> str:
    result = read("few-steps")
    took = result["trainings"][recipe]
    facts = [
        f"{minutes(took['training_seconds'])} of training",
        f"{minutes(took['seconds'])} from start to report",
    ]
    # this benchmark compares all few-step adapters in one table
    contenders = {name: result["compare"][name] for name in OF_FEW_STEPS[recipe]}
    return _text(FEW_STEPS, result, facts, contenders)


def _facts(result: dict[str, Any]) -> list[str]:
    facts = []
    # a benchmark beside other work is not timed
    if result["seconds"] is not None:
        facts.append(f"{minutes(result['stages']['train'])} of training")
        facts.append(f"{minutes(result['seconds'])} from start to report")
    if result["held_out_loss"]:
        first, last = result["held_out_loss"]
        facts.append(f"held-out loss {first:.4f} at first, {last:.4f} at the end")
    if result["guidance_recovered"]:
        facts.append(f"guidance recovered: {share(result['guidance_recovered'], 'value')}")
    if result["shows_the_unseen"]:
        shown = result["shows_the_unseen"]
        before, after = (f"{100 * shown[name]:.0f} %" for name in ("guided", "tuned"))
        facts.append(f"pictures of the new kind: {before} before, {after} after")
    return facts


def _text(
    command: str,
    result: dict[str, Any],
    facts: list[str],
    contenders: dict[str, dict[str, Any]],
) -> str:
    rows = []
    for name, row in contenders.items():
        cells = [share(row["caption_first"]), f"{row['nfe']:g}", f"{row['seconds']:.3f}"]
        rows.append([name, *cells])
    count = next(iter(contenders.values()))["caption_first"]["count"]
    where = f"{machine(result)}{older_base(result)}"
    lines = [prose(f"Measured by `{command}`, on {count} held-out captions; {where}.")]
    lines += ["", prose(f"{'; '.join(facts)}."), "", table(HEAD, rows)]
    return "\n".join(lines)


def share(value: dict[str, float], key: str = "rate") -> str:
    """Return a share in percent, with its 95 % interval."""
    text = f"{100 * value[key]:.0f} %"
    if value["low"] is not None:
        text += f" [{100 * value['low']:.0f}, {100 * value['high']:.0f}]"
    return text


def minutes(seconds: float) -> str:
    """Return a time in minutes and seconds."""
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def machine(result: dict[str, Any]) -> str:
    """Return the machine and the date of a result."""
    hardware = result["machine"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return f"{hardware['cpu']}, {hardware['cores']} cores, {gpus}; {result['date']}"


def older_base(result: dict[str, Any]) -> str:
    """Return that the embedded base was trained again since a result, in words, or ""."""
    card = json.loads((EMBEDDED_BASES["embedded"] / "card.json").read_text("utf-8"))
    return f", with the base before {card['made']}'s" if result["date"] < card["made"] else ""
