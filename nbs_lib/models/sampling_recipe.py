"""The sampling recipe of an adapter or a trained model: settings, a sentence, Python code."""

from typing import Any

# By objective.
RECIPE_SENTENCES = {
    "guidance": "sample with guidance_scale=1; negative prompts have no effect",
    "finetune": "sample it like its base, with guidance",
    "consistency": "sample in 2 to 8 steps with LCMScheduler and guidance_scale=1; "
    "negative prompts have no effect",
}
GUIDED_ONCE = (
    "**Sample with `guidance_scale=1` (a CFG scale of 1): the guidance is in the weights. "
    "A higher scale, such as the default of 7.5 in diffusers, guides twice.**"
)
DEFAULT_STEPS = 25  # if the recipe has no number of its own
EXAMPLE = """```python
from diffusers import DiffusionPipeline, {scheduler}

{load}
pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config)
image = pipe({arguments}).images[0]
```"""


def sampling_recipe(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return guidance_scale, scheduler (a class of diffusers) and steps (None: as the base's)."""
    defaults = {"guidance_scale": 1.0, "scheduler": "DDIMScheduler", "steps": None}
    return defaults | metadata.get("sampling", {})


def usage_text(metadata: dict[str, Any]) -> str:
    """Return the sampling recipe in a sentence."""
    return RECIPE_SENTENCES[metadata.get("objective", "guidance")]


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
    if is_pipeline:
        load = f"pipe = DiffusionPipeline.from_pretrained({folder!r})"
    else:
        base = metadata.get("base_origin", metadata["base"])
        load = (
            f"pipe = DiffusionPipeline.from_pretrained(BASE)  # {base}\n"
            f"pipe.load_lora_weights({folder!r})"
        )
    recipe = sampling_recipe(metadata)
    guidance_scale = recipe["guidance_scale"]
    steps = recipe["steps"] or DEFAULT_STEPS
    arguments = f'"a prompt", guidance_scale={guidance_scale:g}, num_inference_steps={steps}'
    # at 1 or below the stock pipeline ignores it
    if metadata.get("negative") and guidance_scale > 1:
        arguments += f", negative_prompt={metadata['negative']!r}"
    resolution = metadata.get("resolution")
    # the stock pipeline's default is the base's own size
    if resolution:
        arguments += f", height={resolution}, width={resolution}"
    return EXAMPLE.format(scheduler=recipe["scheduler"], load=load, arguments=arguments)
