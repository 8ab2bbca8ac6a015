"""The report: one HTML page that holds everything it shows, for a reader who has neither the project nor a network."""

import json
from base64 import b64encode
from hashlib import sha256
from io import BytesIO
from math import isfinite, isinf
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..contenders import CONTENDERS, HYBRID
from ..files import ROOT, read_lines, write_atomic
from ..run import Run

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


def write_report(run: Run) -> Path:
    """Write `report.html` from what the run's stages have left in its folder; parts that are not there are left out.

    Errors: FileNotFoundError where there is no comparison, or one of its pictures is gone.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, percent=percent, value=value)
    write_atomic(run.report, environment.get_template("report.html.j2").render(page(run)))
    return run.report


def read_results(run: Run) -> dict[str, Any]:
    """The comparison's numbers and pictures. Errors: FileNotFoundError, with what to do."""
    path = run.compare / "results.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder} has no comparison; run notebooks/3_compare.ipynb with this run, or `onepass run`"
        )
    return json.loads(path.read_text())


def data_url(picture: Path | np.ndarray) -> str:
    """A PNG file, or a picture [h, w, 3] of bytes, as a URL that holds it."""
    if isinstance(picture, Path):
        png = picture.read_bytes()
    else:
        Image.fromarray(picture).save(buffer := BytesIO(), "PNG")
        png = buffer.getvalue()
    return "data:image/png;base64," + b64encode(png).decode()


def page(run: Run) -> dict[str, Any]:
    """Everything the template shows."""
    results, record = read_results(run), run.read()
    style = (HERE / "viewer.css").read_text() + (HERE / "report.css").read_text()
    script = (HERE / "report.js").read_text()
    figures = {name: embedded(run.compare / file) for name, file in results["figures"].items() if file}
    return {
        "run": run.name,
        "record": record,
        "results": results,
        "contenders": list(results["contenders"]),
        "who": {name: described(name, results) for name in results["contenders"]},
        "pairs": PAIRS,
        "cards": [card(run, picture) for picture in results["pictures"]],
        "figures": figures | {name: embedded(run.folder / f"{name}.png") for name in ("loss", "usage")},
        "training": training(run),
        "title": TITLES[results["objective"]],
        "code": usage_example(run, results),
        # Markup is for files of ours only; everything a person typed goes through the template's escaping
        "style": Markup(style),
        "script": Markup(script),
        "hashes": {"style": csp_hash(style), "script": csp_hash(script)},
    }


def described(name: str, results: dict[str, Any]) -> str:
    """What a contender is, in a few words."""
    w, (kind, _, share) = f"base, w = {results['w_train']:g}", name.partition("-")
    tuned = "all weights trained" if results["whole_model"] else f"base + adapter, λ = {results['adapter_scale']:g}"
    return {
        "unguided": "base, w = 1",
        "guided": w,
        "selective": f"{w}, but for the last {share} % of the steps",
        "hybrid": f"{tuned}, w = {HYBRID:g} on the first {share} % of the steps",
    }.get(kind, tuned)


def card(run: Run, picture: dict[str, Any]) -> dict[str, Any]:
    """A prompt and seed with its pictures, by contender."""
    files = {name: run.compare / picture["files"][name] for name in CONTENDERS if name in picture["files"]}
    with Image.open(next(iter(files.values()))) as opened:
        small = opened.width < SMALL
    return {
        "prompt": picture["prompt"],
        "seed": picture["seed"],
        "small": small,
        "pictures": {name: data_url(file) for name, file in files.items()},
    }


def embedded(path: Path) -> str | None:
    return data_url(path) if path.is_file() else None


def training(run: Run) -> dict[str, Any] | None:
    """Steps, first and last loss of the training; None where it left no metrics."""
    lines = [line for line in read_lines(run.metrics) if "loss" in line]
    return {"steps": lines[-1]["step"], "first": lines[0]["loss"], "last": lines[-1]["loss"]} if lines else None


def usage_example(run: Run, results: dict[str, Any]) -> str:
    """How a stock diffusers pipeline samples what was trained, as code that runs from the project's folder."""
    # what was loaded, which is not what was asked for where an id was taken down and a mirror served
    base = "nbs_lib/picturebook/base" if results["base"] == "embedded" else results["base_origin"].partition("@")[0]
    learned = run.model if results["whole_model"] else run.adapter
    place = str(learned.relative_to(ROOT) if learned.is_relative_to(ROOT) else learned)
    load = f"""\
pipe.load_lora_weights({place!r}, weight_name="pytorch_lora_weights.safetensors", adapter_name="onepass")
pipe.set_adapters("onepass", {results["adapter_scale"]:g})
"""
    how, one_pass = results["sampling"], "  # one pass a step: what was trained holds its guidance already"
    first = results["pictures"][0] if results["pictures"] else {"prompt": "A person holding a cat", "seed": 0}
    return f"""\
import torch
from diffusers import DiffusionPipeline, {how["scheduler"]}

pipe = DiffusionPipeline.from_pretrained({(place if results["whole_model"] else str(base))!r}, safety_checker=None)
pipe.scheduler = {how["scheduler"]}.from_config(pipe.scheduler.config)
{"" if results["whole_model"] else load}
image = pipe(
    {first["prompt"]!r},
    num_inference_steps={how["steps"]},
    guidance_scale={how["guidance_scale"]:g},{one_pass if how["guidance_scale"] == 1 else ""}
    generator=torch.Generator().manual_seed({first["seed"]}),
).images[0]
image.save("picture.png")
"""


def csp_hash(text: str) -> str:
    """How a content security policy names an inline style or script. Source: W3C CSP level 3, section 2.3.1."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def number(given: float | None, digits: int = 3) -> str:
    """A number in so many significant digits, without an exponent where a reader would not want one."""
    if given is None or not isfinite(given):
        return "∞" if given is not None and isinf(given) and given > 0 else "–"
    shown = f"{given:.{digits}g}"
    if "e" not in shown:
        return shown
    return f"{given:,.0f}" if abs(given) >= 1 else f"{given:.{digits - 1}e}"


def percent(given: float | None) -> str:
    return "–" if given is None or not isfinite(given) else f"{round(100 * given)}\N{NARROW NO-BREAK SPACE}%".replace("-", "−")


def value(given: Any) -> str:
    """A parameter as a reader would write it."""
    if isinstance(given, list):
        if not given:
            return "none"
        return "\n".join(map(str, given)) if any(isinstance(item, str) for item in given) else ", ".join(map(str, given))
    return f"{given:g}" if isinstance(given, float) else str(given)
