"""The summary of a comparison: its numbers as text, its figures with alternative texts."""

from typing import Any

from ...files import from_project
from .descriptions import describe_contender, describe_precision

ROW = "{:{width}}{:>19}{:>21}{:>21}{:>12}{:>6}{:>13}{:>8}"  # of the table
DIVERSITY = "{:>11}"  # its last column, if there are several seeds
# Its other columns, after the name of the contender.
TITLES = (
    "right caption first",
    "distance to guided",
    "nearer to guided",
    "CLIP score",
    "NFE",
    "s a picture",
    "MiB",
)
# Alternative texts of the figures.
ALT = {
    "own": "Your own pictures, and below each what base and adapter draw for its caption",
    "grid": "All pictures in one grid: a row for each contender, a column for each prompt and seed",
    "rates": "How often the right caption comes first, a bar for each contender; "
    "the numbers are in the table",
    "frontier": "Quality of each contender against its denoiser evaluations; "
    "the numbers are in the table",
    "dial": "The guidance scale of the pictures for each one that was asked for, "
    "beside the diagonal",
    "differences": "Guided's pictures, tuned's pictures, and maps of where they differ",
    "steps": "The first prompt on its way from noise to a picture, guided and tuned",
    "axes": "Pictures over the axes that were asked for",
}


def figure_images(comparison: Any, *names: str) -> list[Any]:
    """Return the requested figures that exist, as IPython images.

    comparison: a Comparison
    """
    # imported here, because only a notebook displays them
    from IPython.display import Image

    images = []
    for name in names:
        file = comparison.results["figures"].get(name)
        if file:
            images.append(Image(comparison.folder / file, alt=ALT[name]))
    return images


def summary(comparison: Any) -> str:
    """Return the numbers as a table in text, and the path of the report.

    comparison: a Comparison
    """
    results = comparison.results
    contenders = results["contenders"]
    # contenders may be folders with long names
    width = max(13, 2 + max(map(len, contenders)))
    head = ("", *TITLES)
    diverse = any(row.get("diversity") for row in contenders.values())
    lines = [ROW.format(*head, width=width) + (DIVERSITY.format("diversity") if diverse else "")]
    for name, row in contenders.items():
        cells = (name, *_cells(row))
        line = ROW.format(*cells, width=width)
        lines.append(line + (DIVERSITY.format(_diversity(row)) if diverse else ""))
    if results["guidance_recovered"]:
        lines.append(f"guidance recovered: {_rate(results['guidance_recovered'], 'value')}")
    # said, or a reader would look for the line
    elif contenders["guided"]["caption_first"] and results["objective"] != "finetune":
        lines.append(
            "guidance recovered: not defined, because guidance gained nothing on these captions"
        )
    measured = results["dial"] or {"turns": []}
    for row in measured["turns"]:
        w = "beyond what was tried" if row["w"] is None else f"{row['w']:.2f}"
        lines.append(
            f"asked for w = {row['target']:g}, λ = {row['adapter_scale']:.2f}: nearest to w = {w}, "
            f"distance to guided there {_ratio(row['distance_ratio'])}"
        )
    if measured.get("beyond"):
        beyond = ", ".join(f"{w:g}" for w in measured["beyond"])
        lines.append(f"asked for w = {beyond}: this adapter gives {measured['highest']:g} at most")
    lines += _score_lines(results)
    lines += _likeness_lines(results)
    # a fine-tuned model is sampled like its base
    if results["objective"] != "finetune":
        lines.append(
            f"tuned takes {results['time_ratio']:.2f} of guided's time and "
            f"{results['nfe_ratio']:g} of its NFE"
        )
    if precision := describe_precision(results):
        lines.append(precision)
    lines += [
        "distance to guided: in latents, of unguided's; nearer: than unguided's picture; "
        f"{pictures_measured(results)}",
        f"MiB: {contenders['tuned']['memory_kind']}; [ , ]: 95 % intervals; "
        f"w = {results['w_train']:g}, {results['steps']} steps",
        f"report: {from_project(comparison.report)}",
    ]
    return "\n".join(lines)


def _cells(row: dict) -> tuple[str, ...]:
    """Return a contender's numbers as text, a cell for each of TITLES."""
    score = row.get("clip_score")
    fidelity = row.get("fidelity") or {}
    return (
        _rate(row["caption_first"], "rate"),
        _ratio(fidelity.get("distance_ratio")),
        _rate(fidelity.get("nearer"), "rate"),
        f"{score['value']:.1f}" if score else "–",
        f"{row['nfe']:g}",
        f"{row['seconds']:.3g}",
        f"{row['memory_mib']:.0f}",
    )


def numbers_table(comparison: Any) -> str:
    """Return the numbers and their intervals as an HTML table, without columns of no numbers.

    comparison: a Comparison
    """
    # imported here, because Jinja is needed in a notebook alone
    from ...images.html import html_table

    results = comparison.results
    table = {"": [], "what it is": []} | {title: [] for title in TITLES}
    for name, row in results["contenders"].items():
        values = (name, describe_contender(name, results), *_cells(row))
        # a row goes on with its scores, see below
        for column, value in zip(table.values(), values, strict=False):
            column.append(value)
        # the text of a summary has no room for its interval
        score = row.get("clip_score")
        if score and score["low"] is not None:
            table["CLIP score"][-1] += f" [{score['low']:.1f}, {score['high']:.1f}]"
        for key, published in (results.get("scores") or {}).items():
            table.setdefault(published["title"], []).append(score_text(row["scores"][key]))
    filled = {title: column for title, column in table.items() if set(column) != {"–"}}
    rows = [map(_unbroken, row) for row in zip(*filled.values(), strict=True)]
    note = f"In brackets: 95 % intervals, of {pictures_measured(results)}"
    return html_table(note, list(filled), rows)


def _unbroken(text: str) -> str:
    """Return a number and its interval, between which alone a line may end."""
    number, bracket, interval = text.partition(" [")
    return number + bracket + interval.replace(" ", "\N{NO-BREAK SPACE}")


def _score_lines(results):
    lines = []
    # an older comparison has none
    for name, score in (results.get("scores") or {}).items():
        rows = [
            (contender, row["scores"][name]) for contender, row in results["contenders"].items()
        ]
        values = [f"{contender} {score_text(value)}" for contender, value in rows if value]
        lines.append(f"{score['title']} ({score['better']} is better): {', '.join(values) or '–'}")
    return lines


def score_text(measured: dict | None) -> str:
    """Return a published score and its interval, in four digits."""
    if not measured:
        return "–"
    value, low, high = (measured[name] for name in ("value", "low", "high"))
    return f"{value:.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]")


def _likeness_lines(results):
    own = results.get("own") or {}
    if not own.get("likeness"):
        return []
    before, after = (_ratio(own["likeness"][name]) for name in ("guided", "tuned"))
    text = f"{before} before, {after} after (mean cosine of features)"
    return [f"likeness to {own['count']} of your pictures: {text}"]


def pictures_measured(results: dict) -> str:
    """Return the number of pictures that the fidelity rests on, and of which prompts they are.

    Errors: KeyError for an older comparison, which has no fidelity.
    """
    count = results["contenders"]["tuned"]["fidelity"]["count"]
    return f"{count} pictures of {results['measured_on']}"


def _ratio(ratio):
    """Return a ratio and its interval, two digits after the point."""
    if not ratio:
        return "–"
    # unguided's own, which is 1 by definition
    if ratio["low"] is None or ratio["low"] == ratio["high"]:
        return f"{ratio['value']:.2f}"
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def _diversity(row):
    return f"{row['diversity']['value']:.2f}" if row.get("diversity") else "–"


def _rate(row, key):
    """Return a rate and its interval in percent."""
    if not row:
        return "–"
    if row["low"] is None:
        return _percent(row[key])
    return f"{_percent(row[key])} [{_percent(row['low'])}, {_percent(row['high'])}]"


def _percent(rate):
    return f"{round(100 * rate)} %"
