"""A page for others: a Gradio app, ready for a Space of the hub.

export/space/
  app.py             base and adapter side by side: prompt, seed, steps, w and λ
  settings.json      its values, of this run
  requirements.txt   its packages
  README.md          the Space's settings
  adapter/           the export for diffusers
  base/              the embedded base, if it is an adapter of one

The app imports Gradio and diffusers, and nothing of Onepass.
"""

import json
import shutil
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from ..files import atomic_folder
from ..models import find_base
from ..models.components import INDEX
from ..models.lora.dial import dial_points
from ..models.origin import hub_id
from ..models.sampling_recipe import (
    DEFAULT_STEPS,
    holds_guidance,
    sampling_recipe,
    scheduler_options,
    step_options,
    usage_text,
)
from ..models.stable_diffusion_3 import EULER
from ..project import EMBEDDED_BASES
from .exporter import check_export_folder, export, find_run, write_metadata
from .kohya import ExportError
from .model_card import export_metadata

# the version that the browser test runs
GRADIO = "6.31.0"
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors")
PROMPT = "A person holding a cat"
README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
{models}---

{about}
"""


def write_space(run: str | Path) -> Path:
    """Write the app of a run's adapter, and return its folder.

    run: name of a run in outputs/, or its folder

    Errors: ExportError if a Space could not have the base; those of `export`.
    """
    run = find_run(run)
    folder = run.folder / "export" / "space"
    check_export_folder(folder)
    if run.adapter.is_dir():
        # refused before the export, which takes longer
        base_of_space(export_metadata(run, ()))
    exported = export(run.folder, "diffusers")
    facts = export_metadata(run, ())
    with atomic_folder(folder, replace=True) as part:
        shutil.copytree(exported, part / "adapter")
        settings = app_settings(facts)
        # an empty revision: it is a folder of the Space
        if not settings["revision"]:
            copy_embedded_base(facts["base"], part / settings["base"])
        write_app(part, settings)
        write_metadata(part, facts)
    return folder


def write_app(folder: Path, settings: dict):
    """Write the app and its texts into a folder. settings: see `app_settings`."""
    # text, and no module of this library: Gradio is not installed beside it
    source = files(__package__).joinpath("space_app.py.txt").read_text(encoding="utf-8")
    texts = {
        "app.py": source,
        "settings.json": json.dumps(settings, indent=1, ensure_ascii=False) + "\n",
        "requirements.txt": requirements(),
        "README.md": space_readme(settings),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def base_of_space(facts: dict) -> tuple[str, str]:
    """Return the base's hub id and revision, or its folder in the Space and "".

    Errors: ExportError for a local folder.
    """
    origin = facts.get("base_origin", facts["base"])
    # at its revision, because the hub's newest may be another base
    if repository := hub_id(origin):
        return repository, origin.partition("@")[2]
    if facts["base"] in EMBEDDED_BASES:
        return "base", ""
    raise ExportError(
        f"{facts['name']}: its base is {origin!r}, a local folder, which a Space does not have; "
        "allowed is an embedded base, or one that was loaded by its hub id"
    )


def app_settings(facts: dict) -> dict:
    """Return the app's values. facts: see `model_card.export_metadata`."""
    base, revision = base_of_space(facts)
    compared = facts["compared"] or {}
    tuned = tuned_settings(facts)
    one_pass = tuned["holds_guidance"] and facts["objective"] == "guidance"
    # the page begins where the adapter was trained
    w = facts["w_train"]
    return {
        "name": facts["name"],
        "about": f"A picture of `{facts['base']}` with guidance beside one of the adapter, from "
        f"equal noise. The adapter: {usage_text(facts)}.",
        "base": base,
        "revision": revision,
        "base_options": facts.get("base_options", {}),
        "denoiser": "transformer" if facts["transformer"] else "unet",
        "negative": facts.get("negative", ""),
        "resolution": facts.get("resolution"),
        # that of a comparison's base contenders
        "scheduler": EULER if facts["transformer"] else "DDIMScheduler",
        "steps": compared.get("steps", DEFAULT_STEPS),
        "w": w,
        "highest_w": max(10.0, w),
        "adapter_scale": compared.get("adapter_scale", 1.0),
        # only one pass that holds the guidance has a λ for each w
        "dial": dial_points(facts) if one_pass else [],
        "prompt": PROMPT,
        "tuned": tuned,
    }


def tuned_settings(facts: dict) -> dict:
    """Return how the app samples with the adapter.

    step_options: the arguments of the pipeline's call that set the steps, a flow's noise levels
        among them; {} if the reader chooses the steps
    """
    recipe = sampling_recipe(facts)
    scheduler = recipe["scheduler"]
    steps = recipe["steps"]
    return {
        "scheduler": scheduler,
        "scheduler_options": scheduler_options(recipe),
        "guidance_scale": recipe["guidance_scale"],
        "holds_guidance": holds_guidance(facts),
        "step_options": step_options(scheduler, recipe["timestep_spacing"], steps) if steps else {},
    }


def copy_embedded_base(name: str, folder: Path):
    """Copy the parts of an embedded base that its pipeline needs."""
    folder.mkdir()
    base = find_base(name)
    # by name, because the folder also has what made the base, and a CLIP that only scores
    for part in (INDEX, *base.components):
        source = base.folder / part
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / part)


def requirements() -> str:
    """Return the app's packages at the versions that are installed, with which it was exported."""
    # +cpu and the like name a build for this machine
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES]
    return "\n".join([*pins, f"gradio=={GRADIO}"]) + "\n"


def space_readme(settings: dict) -> str:
    """Return README.md of a Space, whose first lines are its settings."""
    # a value in JSON is also one in YAML, whatever characters it has
    models = f"models: {json.dumps([settings['base']])}\n" if settings["revision"] else ""
    title = json.dumps(settings["name"], ensure_ascii=False)
    return README.format(title=title, gradio=GRADIO, models=models, about=settings["about"])
