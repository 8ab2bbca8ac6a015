"""The HTML report: one page that holds everything it shows, and needs no project and no network."""

import json
from io import BytesIO
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...config.contenders import CONTENDERS
from ...files import write_atomic
from ...images.html import data_url, inline, template_environment
from ...run.record import read_metrics
from ...run.run import Run
from .descriptions import describe_contender, describe_precision
from .snippet import short_example, usage_example
from .summary import ALT, pictures_measured

HERE = Path(__file__).parent
PAIRS = (("unguided", "tuned"), ("guided", "tuned"))  # the left and the right picture of a slider
TITLES = {
    "guidance": "Guidance in one pass",
    "finetune": "Fine-tuned on its own images",
    "consistency": "A few steps instead of many",
    "distribution": "A few steps instead of many",
}
SMALL = 256  # pictures narrower than this are enlarged with square pixels
MAX_BYTES = 10_000_000  # size of a page, so that it can be sent by mail
# Qualities of WebP and the pixels that pictures are reduced to, for pages that would be larger; 0
# for the PNGs themselves.
QUALITIES = {
    0: 0,
    85: 8000,
    60: 4000,
    35: 2000,
    20: 1000,
}


def write_report(run: Run) -> Path:
    """Write `report.html` from the files of the run's stages; parts without files are left out.

    Errors: FileNotFoundError without a comparison, or for a lost picture.
    """
    templates = template_environment(HERE)
    templates.filters.update(number=number, percent=percent, value=value, titled=contender_title)
    template = templates.get_template("report.html.j2")
    count = len(read_results(run)["pictures"])
    attempts = [(quality, count) for quality in QUALITIES]
    # then fewer and fewer pictures, at the lowest quality
    attempts += [(20, count >> halvings) for halvings in range(1, count.bit_length())]
    for quality, max_cards in attempts:
        html = template.render(page(run, quality, max_cards))
        if len(html.encode()) < MAX_BYTES:
            break
    # after all pictures are read: a lost one must not cost the old report
    write_atomic(run.report, html)
    return run.report


def read_results(run: Run) -> dict:
    """Return the contents of results.json. Errors: FileNotFoundError, with what to do."""
    path = run.compare / "results.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder} has no comparison; run notebooks/3_compare.ipynb with this run, or "
            "`onepass run`"
        )
    return json.loads(path.read_text("utf-8"))


def picture_url(picture: Path | np.ndarray, quality: int = 0) -> str:
    """Return a picture as a URL that holds it.

    picture: a PNG file, or uint8 [h, w, 3]
    quality: of WebP, 0 for PNG
    """
    is_file = isinstance(picture, Path)
    # the file as it is: its text says how the picture was sampled
    if is_file and not quality:
        return data_url(picture.read_bytes())
    image = Image.open(picture).convert("RGB") if is_file else Image.fromarray(picture)
    buffer = BytesIO()
    if not quality:
        image.save(buffer, "PNG")
        return data_url(buffer.getvalue())
    image.thumbnail((QUALITIES[quality], QUALITIES[quality]))
    image.save(buffer, "WEBP", quality=quality)
    return data_url(buffer.getvalue(), "webp")


def page(run: Run, quality: int = 0, max_cards: int | None = None) -> dict:
    """Return everything that the template shows.

    quality: of the pictures, see `picture_url`
    max_cards: prompts and seeds whose pictures are shown, None for all
    """
    results = read_results(run)
    # the slider looks the same on the page and in the notebook
    style = (HERE.parent / "playground" / "viewer.css").read_text("utf-8")
    style += (HERE / "report.css").read_text("utf-8")
    script = (HERE / "report.js").read_text("utf-8")
    contenders = list(results["contenders"])
    values = {
        "run": run.name,
        "record": run.read(),
        "results": results,
        "contenders": contenders,
        "descriptions": {name: describe_contender(name, results) for name in contenders},
        "pairs": PAIRS,
        "cards": [card(run, picture, quality) for picture in results["pictures"][:max_cards]],
        "alt": ALT,
        "figures": embedded_figures(run, results, quality),
        "training": training(run),
        # an older comparison has no fidelity
        "pictures_measured": pictures_measured(results) if "measured_on" in results else None,
        "precision": describe_precision(results),
        "title": TITLES[results["objective"]],
        "code": usage_example(run, results),
        "short_code": short_example(run, results),
    }
    return values | inline(style, script)


def card(
    run: Run,
    picture: dict,
    quality: int = 0,
) -> dict:
    """Return a prompt and seed with the pictures of the three standard contenders."""
    files = {
        name: run.compare / picture["files"][name]
        for name in CONTENDERS
        if name in picture["files"]
    }
    # one of them: pictures of a card have one size
    with Image.open(next(iter(files.values()))) as opened:
        small = opened.width < SMALL
    return {
        "prompt": picture["prompt"],
        "seed": picture["seed"],
        "small": small,
        "pictures": {name: picture_url(file, quality) for name, file in files.items()},
    }


def embedded_figures(
    run: Run,
    results: dict,
    quality: int = 0,
) -> dict[str, str]:
    """Return the figures that exist as URLs that hold them, by name."""
    paths = {name: run.compare / file for name, file in results["figures"].items() if file}
    # the training's, which lie beside the report
    for name in ("loss", "usage", "validation"):
        paths[name] = run.folder / f"{name}.png"
    return {name: picture_url(path, quality) for name, path in paths.items() if path.is_file()}


def training(run: Run) -> dict | None:
    """Return steps, first and last loss of the training, and which weights it saved, in words.

    None if it left no metrics.
    """
    rows = [row for row in read_metrics(run.metrics) if "loss" in row]
    if not rows:
        return None
    return {
        "steps": rows[-1]["step"],
        "first": rows[0]["loss"],
        "last": rows[-1]["loss"],
        # a record of an earlier version has none
        "weights": run.stage_record("train").get("weights_source"),
    }


def number(x: float | None, digits: int = 3) -> str:
    """Return a number in so many significant digits, with an exponent only if it is very small."""
    if x == inf:
        return "∞"
    # not measured, or undefined
    if x is None or not isfinite(x):
        return "–"
    text = f"{x:.{digits}g}"
    if "e" not in text:
        return text
    return f"{x:,.0f}" if abs(x) >= 1 else f"{x:.{digits - 1}e}"


def contender_title(name: str) -> str:
    """Return a contender's name with a capital; a folder keeps its own letters."""
    return name if "/" in name else name[:1].upper() + name[1:]


def percent(rate: float | None) -> str:
    """Return a rate in whole percent."""
    if rate is None or not isfinite(rate):
        return "–"
    return f"{round(100 * rate)}\N{NARROW NO-BREAK SPACE}%".replace("-", "−")


def value(parameter: Any) -> str:
    """Return a parameter as a reader would write it; texts of a list on lines of their own."""
    if parameter == []:
        return "none"
    if isinstance(parameter, list):
        has_text = any(isinstance(item, str) for item in parameter)
        return ("\n" if has_text else ", ").join(map(str, parameter))
    return f"{parameter:g}" if isinstance(parameter, float) else str(parameter)
