"""The report: one HTML page that holds everything it shows, for a reader who has neither the project nor a network."""

import json
from io import BytesIO
from math import isfinite, isinf
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...config.contenders import CONTENDERS
from ...files import write_atomic
from ...images.html import data_url, inline, template_environment
from ...run.record import read_metrics
from ...run.run import Run
from .snippet import three_lines, usage_example
from .summary import ALT, describe_contender

HERE = Path(__file__).parent
PAIRS = (("unguided", "tuned"), ("guided", "tuned"))
"""What a slider compares: the left picture and the right one."""
TITLES = {
    "guidance": "Guidance in one pass",
    "finetune": "Fine-tuned on its own images",
    "consistency": "A few steps instead of many",
}
SMALL = 256
"""Pictures narrower than this are enlarged with their pixels left square."""
LARGEST = 10_000_000
"""Bytes that a page may have, so that it can be sent by mail."""
QUALITIES = {0: 0, 85: 8000, 60: 4000, 35: 2000, 20: 1000}
"""Of WebP, for the pictures of a page that would be larger, and the pixels that they are then reduced to; 0 are the PNGs
themselves."""


def write_report(run: Run) -> Path:
    """Write `report.html` from what the run's stages have left in its folder; parts that are not there are left out.

    Errors: FileNotFoundError where there is no comparison, or one of its pictures is gone.
    """
    templates = template_environment(HERE)
    templates.filters.update(number=number, percent=percent, value=value, titled=contender_title)
    template = templates.get_template("report.html.j2")
    count = len(read_results(run)["pictures"])
    tries = [(quality, count) for quality in QUALITIES] + [
        (20, count >> halved) for halved in range(1, count.bit_length())
    ]
    for quality, cards in tries:
        html = template.render(page(run, quality, cards))
        if len(html.encode()) < LARGEST:
            break
    write_atomic(run.report, html)
    return run.report


def read_results(run: Run) -> dict[str, Any]:
    """The comparison's numbers and pictures. Errors: FileNotFoundError, with what to do."""
    path = run.compare / "results.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder} has no comparison; run notebooks/3_compare.ipynb with this run, or `onepass run`"
        )
    return json.loads(path.read_text("utf-8"))


def picture_url(picture: Path | np.ndarray, quality: int = 0) -> str:
    """A PNG file, or a picture [h, w, 3] of bytes, as a URL that holds it. quality: of WebP, 0 for PNG."""
    if isinstance(picture, Path) and not quality:
        return data_url(picture.read_bytes())
    image = (
        Image.open(picture).convert("RGB")
        if isinstance(picture, Path)
        else Image.fromarray(picture)
    )
    if quality:
        image.thumbnail((QUALITIES[quality], QUALITIES[quality]))
    image.save(
        buffer := BytesIO(),
        "WEBP" if quality else "PNG",
        **({"quality": quality} if quality else {}),
    )
    return data_url(buffer.getvalue(), "webp" if quality else "png")


def page(run: Run, quality: int = 0, cards: int | None = None) -> dict[str, Any]:
    """Everything the template shows. quality: of its pictures, see `picture_url`; cards: so many of the prompts and seeds at
    most, None for all."""
    results, record = read_results(run), run.read()
    style = (HERE.parent / "playground" / "viewer.css").read_text("utf-8") + (
        HERE / "report.css"
    ).read_text("utf-8")
    script = (HERE / "report.js").read_text("utf-8")
    figures = {
        name: embedded_figure(run.compare / file, quality)
        for name, file in results["figures"].items()
        if file
    }
    return {
        "run": run.name,
        "record": record,
        "results": results,
        "contenders": list(results["contenders"]),
        "who": {name: describe_contender(name, results) for name in results["contenders"]},
        "pairs": PAIRS,
        "cards": [picture_card(run, picture, quality) for picture in results["pictures"][:cards]],
        "alt": ALT,
        "figures": figures
        | {
            name: embedded_figure(run.folder / f"{name}.png", quality)
            for name in ("loss", "usage", "validation")
        },
        "training": training(run),
        "title": TITLES[results["objective"]],
        "code": usage_example(run, results),
        "three": three_lines(run, results),
    } | inline(style, script)


def picture_card(run: Run, picture: dict[str, Any], quality: int = 0) -> dict[str, Any]:
    """A prompt and seed with its pictures, by contender."""
    files = {
        name: run.compare / picture["files"][name]
        for name in CONTENDERS
        if name in picture["files"]
    }
    with Image.open(next(iter(files.values()))) as opened:
        small = opened.width < SMALL
    return {
        "prompt": picture["prompt"],
        "seed": picture["seed"],
        "small": small,
        "pictures": {name: picture_url(file, quality) for name, file in files.items()},
    }


def embedded_figure(path: Path, quality: int = 0) -> str | None:
    return picture_url(path, quality) if path.is_file() else None


def training(run: Run) -> dict[str, Any] | None:
    """Steps, first and last loss of the training; None where it left no metrics."""
    lines = [line for line in read_metrics(run.metrics) if "loss" in line]
    return (
        {"steps": lines[-1]["step"], "first": lines[0]["loss"], "last": lines[-1]["loss"]}
        if lines
        else None
    )


def number(given: float | None, digits: int = 3) -> str:
    """A number in so many significant digits, without an exponent where a reader would not want one."""
    if given is None or not isfinite(given):
        return "∞" if given is not None and isinf(given) and given > 0 else "–"
    shown = f"{given:.{digits}g}"
    if "e" not in shown:
        return shown
    return f"{given:,.0f}" if abs(given) >= 1 else f"{given:.{digits - 1}e}"


def contender_title(name: str) -> str:
    """A contender's name at the head of a row; a folder's stays as it is."""
    return name if "/" in name else name[:1].upper() + name[1:]


def percent(given: float | None) -> str:
    return (
        "–"
        if given is None or not isfinite(given)
        else f"{round(100 * given)}\N{NARROW NO-BREAK SPACE}%".replace("-", "−")
    )


def value(given: Any) -> str:
    """A parameter as a reader would write it."""
    if isinstance(given, list):
        if not given:
            return "none"
        return (
            "\n".join(map(str, given))
            if any(isinstance(item, str) for item in given)
            else ", ".join(map(str, given))
        )
    return f"{given:g}" if isinstance(given, float) else str(given)
