"""Python code that samples what was trained with a stock diffusers pipeline.

It runs from the project's folder.
"""

import json
from pathlib import Path

from ...files import from_project
from ...models.lora.metadata import LORA_FILE
from ...models.sampling_recipe import scheduler_code, scheduler_options, step_code
from ...project import EMBEDDED_BASES
from ...run.run import Run

IMPORT = (
    "import nbs_lib  # which leaves out the libraries' remarks on parts that are not used here; "
    "the rest is diffusers alone"
)
# The base's own serves as well.
DEFAULT_SCHEDULERS = ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler")
# The picture of a comparison that has none.
FIRST_PICTURE = {"prompt": "A person holding a cat", "seed": 0}


def model_paths(run: Run, results: dict) -> tuple[str, str]:
    """Return the path or hub id of the stock pipeline, and the path of what was trained."""
    if results["whole_model"]:
        model = from_project(run.model)
        return model, model
    adapter = from_project(run.adapter)
    if results["base"] in EMBEDDED_BASES:
        return from_project(EMBEDDED_BASES[results["base"]]), adapter
    # the base that was loaded: a mirror's, if the id that the user gave was removed from the hub
    return results["base_origin"].partition("@")[0], adapter


def _load_options(results: dict) -> str:
    """Return code of what the stock pipeline is loaded with besides the folder."""
    # an earlier comparison has none
    options = {"safety_checker": None} | results.get("base_options", {})
    return ", ".join(f"{name}={value}" for name, value in options.items())


def short_example(run: Run, results: dict) -> str:
    """Return the shortest code that samples a picture."""
    base, learned = model_paths(run, results)
    sampling = results["sampling"]
    load = "" if results["whole_model"] else f"pipe.load_lora_weights({learned!r})\n"
    # few steps need their scheduler; otherwise the base's own serves as well
    if sampling["scheduler"] not in DEFAULT_SCHEDULERS or scheduler_options(sampling):
        load += f"pipe.scheduler = diffusers.{scheduler_code(sampling)}\n"
    options = f"guidance_scale={sampling['guidance_scale']:g}, {step_code(sampling)}"
    return f"""\
pipe = diffusers.DiffusionPipeline.from_pretrained({base!r}, {_load_options(results)})
{load}pipe("a prompt", {options}).images[0]"""


def usage_example(run: Run, results: dict) -> str:
    """Return code that samples the first picture of a comparison."""
    base, learned = model_paths(run, results)
    sampling = results["sampling"]
    w = sampling["guidance_scale"]
    picture = results["pictures"][0] if results["pictures"] else FIRST_PICTURE
    load = ""
    if not results["whole_model"]:
        load_options = f'weight_name="{LORA_FILE}", adapter_name="onepass"'
        load = f"""\
pipe.load_lora_weights({learned!r}, {load_options})
pipe.set_adapters("onepass", {results["adapter_scale"]:g})
"""
    options = ""
    # diffusers would sample at the base's own size
    if results["resolution"]:
        options += f"\n    height={results['resolution']},\n    width={results['resolution']},"
    # without guidance a negative prompt has no effect
    if results.get("negative") and w > 1:
        options += f"\n    negative_prompt={results['negative']!r},"
    remark = "  # one pass a step: what was trained holds its guidance already" if w == 1 else ""
    return f"""\
{IMPORT}
import torch
from diffusers import DiffusionPipeline, {sampling["scheduler"]}

pipe = DiffusionPipeline.from_pretrained({base!r}, {_load_options(results)})
pipe.scheduler = {scheduler_code(sampling)}
{load}
image = pipe(
    {picture["prompt"]!r},
    {step_code(sampling)},{options}
    guidance_scale={w:g},{remark}
    generator=torch.Generator().manual_seed({picture["seed"]}),
).images[0]
image.save("picture.png")
"""


def card_usage(folder: str | Path) -> str:
    """Return how what a run has trained is loaded, in Markdown: the card's text above its table.

    folder: of the run
    """
    run = Run(folder)
    results = json.loads((run.compare / "results.json").read_text("utf-8"))
    card = (run.model if results["whole_model"] else run.adapter) / "README.md"
    # another program's adapter has none
    if not card.is_file():
        return f"```python\n{short_example(run, results)}\n```"
    # between the card's title and its table
    _, _, titled = card.read_text("utf-8").partition("\n# ")
    text = titled.partition("\n")[2].partition("\n| | |")[0]
    base, learned = model_paths(run, results)
    remark = f"Here, the folder is `{learned!r}`"
    # of a base on the hub, the card has the id
    if "(BASE)" in text:
        remark = f"Here, `BASE` is `{base!r}` and the adapter's folder `{learned!r}`"
    return f"{text.strip()}\n\n{remark}; the card is in it."
