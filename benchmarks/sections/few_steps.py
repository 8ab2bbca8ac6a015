"""Few steps: quality, time, and both kinds of adapters together."""

from .figures import machine_line, minutes, percent

FEW_STEPS = """
## Few steps

`make bench-few-steps` trains the adapters from nothing, and compares them with their base on 500
held-out captions. *Of guided*: the rate as a share of guided's. *FID* is from the data's pictures
of the same captions, in the embedded CLIP's space. *Diversity*: the mean distance between four
pictures of one prompt, in latents.

"""


def few_steps_text(result: dict) -> str:
    """Return quality by contender, times, both adapters' scales, and the parts of a step."""
    rows = [
        "| contender | NFE | caption first | of guided | FID | diversity | seconds a picture |",
        "|---|---|---|---|---|---|---|",
    ]
    contenders = result.get("compare", {})
    for name, row in contenders.items():
        rate = row["caption_first"]
        guided = contenders["guided"]["caption_first"]["rate"]
        cells = (
            name,
            f"{row['nfe']:g}",
            percent(rate),
            f"{100 * rate['rate'] / guided:.1f} %",
            f"{row['fid']['value']:.4f}",
            f"{row['diversity']['value']:.2f}",
            f"{row['seconds']:.3f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    rows += ["", *_training_lines(result), "", *_together_rows(result), *_cost_lines(result), ""]
    return "\n".join(rows) + machine_line(result, of_pictures=True) + "\n"


def _training_lines(result: dict) -> list[str]:
    lines = []
    for name, figures in result.get("trainings", {}).items():
        line = f"`{name}`: {minutes(figures['training_seconds'])} of training"
        # those that are run whole
        if figures["seconds"]:
            line += f", {minutes(figures['seconds'])} from start to report"
        lines.append(line)
    return ["; ".join(lines) + "."]


def _together_rows(result: dict) -> list[str]:
    if "together" not in result:
        return []
    rows = result["together"]["rows"]
    dials = sorted({row["guidance"] for row in rows})
    lines = [
        "The adapter of `few-steps` beside the guidance adapter of `demo`, each at its own scale "
        "λ: right caption first, and FID, of 150 captions in 4 passes.",
        "",
        "| λ of few steps | " + " | ".join(f"guidance {dial:g}" for dial in dials) + " |",
        "|---" * (len(dials) + 1) + "|",
    ]
    for few in sorted({row["few_steps"] for row in rows}):
        cells = [
            f"{100 * row['caption_first']['rate']:.0f} %, {row['fid']['value']:.4f}"
            for row in rows
            if row["few_steps"] == few
        ]
        lines.append(f"| {few:g} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cost_lines(result: dict) -> list[str]:
    if "cost" not in result:
        return []
    cost = result["cost"]
    parts = ", ".join(f"{name} {1000 * time:.0f} ms" for name, time in cost["seconds"].items())
    return [
        f"A training step of {cost['batch']} examples in one process of one thread, forward and "
        f"backward: {parts}. A step of distribution takes {cost['times_guidance']:.2f} times a "
        "step of guidance.",
        "",
    ]
