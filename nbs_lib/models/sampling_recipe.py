"""The sampling recipe of an adapter or a trained model: settings, a sentence, Python code."""

import json
from typing import Any

from ..diffusion import ONE_STEP
from .origin import hub_id

# By objective.
RECIPE_SENTENCES = {
    "guidance": "sample with guidance_scale=1; negative prompts have no effect",
    "finetune": "sample it like its base, with guidance",
    "consistency": "sample in 2 to 8 steps with {scheduler} and guidance_scale=1; "
    "negative prompts have no effect",
    "distribution": "sample in {steps}{others} with {scheduler}, {options} and "
    "guidance_scale=1; negative prompts have no effect",
}
GUIDED_ONCE = (
    "**Sample with `guidance_scale=1` (a CFG scale of 1): the guidance is in the weights. "
    "A higher scale, such as the default of 7.5 in diffusers, guides twice.**"
)
DIAL_EXAMPLES = (1.5, 2, 3, 4, 6, 8)  # guidance scales that a card's code names
FLOW_SCHEDULERS = "FlowMatch"  # how the names of a flow's schedulers begin
DEFAULT_STEPS = 25  # if the recipe has no number of its own
EXAMPLE = """```python
from diffusers import DiffusionPipeline, {scheduler}

{load}
pipe.scheduler = {change}
image = pipe({arguments}).images[0]
```"""


def sampling_recipe(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return how to sample.

    Keys: guidance_scale; scheduler, a class of diffusers; timestep_spacing, "" for the base's own;
    steps, None for the base's own
    """
    defaults = {
        "guidance_scale": 1.0,
        "scheduler": "DDIMScheduler",
        "timestep_spacing": "",
        "steps": None,
    }
    return defaults | metadata.get("sampling", {})


def scheduler_options(recipe: dict[str, Any]) -> dict[str, str | int]:
    """Return the options that a scheduler's `from_config` takes besides the base's settings."""
    # a comparison that was written before has none
    spacing = recipe.get("timestep_spacing", "")
    return spacing_options(spacing, recipe["steps"], recipe["scheduler"])


def spacing_options(
    timestep_spacing: str, steps: int | None, scheduler: str = ""
) -> dict[str, str | int]:
    """Return a scheduler's options of its timesteps, none for the base's own.

    They lead to those of `diffusion.few_step_timesteps` if the spacing is trailing.

    scheduler: its class; a flow's has no such options, see `step_options`
    """
    if not timestep_spacing or scheduler.startswith(FLOW_SCHEDULERS):
        return {}
    if timestep_spacing == "trailing" and steps == 1:
        # the only timestep of this spacing is 0, plus the offset
        return {"timestep_spacing": "leading", "steps_offset": ONE_STEP}
    return {"timestep_spacing": timestep_spacing}


def step_options(scheduler: str, timestep_spacing: str, steps: int) -> dict[str, Any]:
    """Return the arguments of a pipeline's call, or of `set_timesteps`, that set the steps.

    scheduler: its class
    timestep_spacing: "" for the base's own
    """
    # before the base's shift, so that they are the levels of `few_step_timesteps`
    if timestep_spacing == "trailing" and scheduler.startswith(FLOW_SCHEDULERS):
        return {"sigmas": [1 - step / steps for step in range(steps)]}
    return {"num_inference_steps": steps}


def scheduler_code(recipe: dict[str, Any]) -> str:
    """Return Python code of the scheduler of a recipe, for a pipeline called `pipe`."""
    options = "".join(f", {option}" for option in _arguments(scheduler_options(recipe)))
    return f"{recipe['scheduler']}.from_config(pipe.scheduler.config{options})"


def step_code(recipe: dict[str, Any]) -> str:
    """Return Python code of the arguments that set the steps of a recipe, in a pipeline's call."""
    spacing = recipe.get("timestep_spacing", "")
    return ", ".join(_arguments(step_options(recipe["scheduler"], spacing, recipe["steps"])))


def _arguments(options: dict[str, Any]) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in options.items()]


def usage_text(metadata: dict[str, Any]) -> str:
    """Return the sampling recipe in a sentence."""
    sentence = RECIPE_SENTENCES[metadata.get("objective", "guidance")]
    recipe = sampling_recipe(metadata)
    steps = recipe["steps"]
    learned = metadata.get("train", {}).get("few_steps", [])
    several = ", ".join(str(number) for number in learned if number not in (1, steps))
    others = f" (or {several})" if several else ""
    # a single step has another timestep, and so other options
    if 1 in learned and steps != 1:
        options = _step_text(recipe | {"steps": 1})
        others += f", or in 1 step with {options},"
    return sentence.format(
        steps="1 step" if steps == 1 else f"{steps} steps",
        others=others,
        scheduler=recipe["scheduler"],
        options=_step_text(recipe),
    )


def _step_text(recipe: dict[str, Any]) -> str:
    """Return the options that lead to a recipe's timesteps, in words."""
    steps = recipe["steps"] or DEFAULT_STEPS
    options = step_options(recipe["scheduler"], recipe["timestep_spacing"], steps)
    # the number of steps is in the sentence
    options.pop("num_inference_steps", None)
    return " and ".join(_arguments(scheduler_options(recipe) | options))


def holds_guidance(metadata: dict[str, Any]) -> bool:
    """Return True if one pass predicts the guided result, so guidance would apply twice."""
    return sampling_recipe(metadata)["guidance_scale"] <= 1


def warning(metadata: dict[str, Any]) -> str:
    """Return the first line of a card, in Markdown; "" for a model that is guided like its base."""
    return f"{GUIDED_ONCE}\n\n" if holds_guidance(metadata) else ""


def usage_code(metadata: dict[str, Any], folder: str, is_pipeline: bool) -> str:
    """Return Python code that samples a picture, as Markdown.

    folder: of the adapter, or of the pipeline if is_pipeline
    """
    # code, not JSON, because a part that is left out is None
    options = "".join(
        f", {name}={value}" for name, value in metadata.get("base_options", {}).items()
    )
    if is_pipeline:
        load = f"pipe = DiffusionPipeline.from_pretrained({folder!r}{options})"
    else:
        base = metadata.get("base_origin", metadata["base"])
        repository = hub_id(base)
        # a base that is on no hub lies where its user has it
        source = f"{repository!r}{options})" if repository else f"BASE{options})  # {base}"
        load = (
            f"pipe = DiffusionPipeline.from_pretrained({source}\n"
            f'pipe.load_lora_weights({folder!r}, adapter_name="onepass")'
        )
        load += "".join(
            f'\n# guidance scale {w:g}: pipe.set_adapters("onepass", {scale:g})'
            for w, scale in metadata.get("dial", [])
            if w in DIAL_EXAMPLES
        )
    recipe = sampling_recipe(metadata)
    guidance_scale = recipe["guidance_scale"]
    steps = recipe["steps"] or DEFAULT_STEPS
    step_arguments = step_code(recipe | {"steps": steps})
    arguments = f'"a prompt", guidance_scale={guidance_scale:g}, {step_arguments}'
    # at 1 or below the stock pipeline ignores it
    if metadata.get("negative") and guidance_scale > 1:
        arguments += f", negative_prompt={metadata['negative']!r}"
    resolution = metadata.get("resolution")
    # the stock pipeline's default is the base's own size
    if resolution:
        arguments += f", height={resolution}, width={resolution}"
    return EXAMPLE.format(
        scheduler=recipe["scheduler"], change=scheduler_code(recipe), load=load, arguments=arguments
    )
