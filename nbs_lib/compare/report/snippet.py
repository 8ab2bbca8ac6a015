"""How what was trained is used with a stock diffusers pipeline, as code that runs from the project's folder."""

from typing import Any

from ...files import ROOT
from ...run.run import Run


def model_paths(run: Run, results: dict[str, Any]) -> tuple[str, str]:
    """Where a stock pipeline is loaded from, and what was trained."""
    learned = run.model if results["whole_model"] else run.adapter
    place = str(learned.relative_to(ROOT) if learned.is_relative_to(ROOT) else learned)
    if results["whole_model"]:
        return place, place
    # what was loaded, which is not what was asked for where an id was taken down and a mirror served
    return "nbs_lib/picturebook/base" if results["base"] == "embedded" else results[
        "base_origin"
    ].partition("@")[0], place


def three_lines(run: Run, results: dict[str, Any]) -> str:
    """The shortest way to a picture."""
    base, place = model_paths(run, results)
    load = "" if results["whole_model"] else f"pipe.load_lora_weights({place!r})\n"
    how = results["sampling"]
    name = how["scheduler"]  # of few steps; any other does what the base's own does
    few = (
        f"pipe.scheduler = diffusers.{name}.from_config(pipe.scheduler.config)\n"
        if name != "DDIMScheduler"
        else ""
    )
    return f"""\
pipe = diffusers.DiffusionPipeline.from_pretrained({base!r}, safety_checker=None)
{load}{few}pipe("a prompt", guidance_scale={how["guidance_scale"]:g}, num_inference_steps={how["steps"]}).images[0]"""


def usage_example(run: Run, results: dict[str, Any]) -> str:
    """The first picture of a comparison."""
    base, place = model_paths(run, results)
    load = f"""\
pipe.load_lora_weights({place!r}, weight_name="pytorch_lora_weights.safetensors", adapter_name="onepass")
pipe.set_adapters("onepass", {results["adapter_scale"]:g})
"""
    how, one_pass = (
        results["sampling"],
        "  # one pass a step: what was trained holds its guidance already",
    )
    first = (
        results["pictures"][0]
        if results["pictures"]
        else {"prompt": "A person holding a cat", "seed": 0}
    )
    size = (
        f"\n    height={results['resolution']},\n    width={results['resolution']},"
        if results["resolution"]
        else ""
    )
    negative = (
        f"\n    negative_prompt={results['negative']!r},"
        if results.get("negative") and how["guidance_scale"] > 1
        else ""
    )
    return f"""\
import nbs_lib  # which leaves out the libraries' remarks on parts that are not used here; the rest is diffusers alone
import torch
from diffusers import DiffusionPipeline, {how["scheduler"]}

pipe = DiffusionPipeline.from_pretrained({base!r}, safety_checker=None)
pipe.scheduler = {how["scheduler"]}.from_config(pipe.scheduler.config)
{"" if results["whole_model"] else load}
image = pipe(
    {first["prompt"]!r},
    num_inference_steps={how["steps"]},{size}{negative}
    guidance_scale={how["guidance_scale"]:g},{one_pass if how["guidance_scale"] == 1 else ""}
    generator=torch.Generator().manual_seed({first["seed"]}),
).images[0]
image.save("picture.png")
"""
