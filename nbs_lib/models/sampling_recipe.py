"""How what was trained is to be sampled: as values, in a sentence, and as Python for a stock pipeline."""

from typing import Any

RECIPE_SENTENCES = {
    "guidance": "sample with guidance_scale=1; negative prompts have no effect",
    "finetune": "sample it like its base, with guidance",
    "consistency": "sample in 2 to 8 steps with LCMScheduler and guidance_scale=1; negative prompts have no effect",
}
"""By objective."""
GUIDED_ONCE = (
    "**Sample with `guidance_scale=1` (a CFG scale of 1): the guidance is in the weights. A higher scale, such as the default "
    "of 7.5 in diffusers, guides twice.**"
)
STEPS = 25
"""Of sampling, where what was trained has none of its own."""
EXAMPLE = """```python
from diffusers import DiffusionPipeline, {scheduler}

{load}
pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config)
image = pipe("a prompt", guidance_scale={guidance_scale:g}, num_inference_steps={steps}{more}).images[0]
```"""


def sampling_recipe(facts: dict[str, Any]) -> dict[str, Any]:
    """guidance_scale, scheduler (a class of diffusers) and steps (None: as many as the base's) of recorded facts."""
    return {"guidance_scale": 1.0, "scheduler": "DDIMScheduler", "steps": None} | facts.get(
        "sampling", {}
    )


def usage_text(facts: dict[str, Any]) -> str:
    """The sentence."""
    return RECIPE_SENTENCES[facts.get("objective", "guidance")]


def holds_guidance(facts: dict[str, Any]) -> bool:
    """Whether one pass of what was trained predicts the guided answer, so that guidance would be applied twice."""
    return sampling_recipe(facts)["guidance_scale"] <= 1


def warning(facts: dict[str, Any]) -> str:
    """Return the first line of a card, in Markdown; an empty text for what is guided like its base."""
    return f"{GUIDED_ONCE}\n\n" if holds_guidance(facts) else ""


def usage_code(facts: dict[str, Any], folder: str, whole: bool) -> str:
    """Python, as Markdown. folder: of the adapter, or, where it is whole, of the pipeline."""
    load = f"pipe = DiffusionPipeline.from_pretrained({folder!r})"
    if not whole:
        base = facts.get("base_origin", facts["base"])
        load = f"pipe = DiffusionPipeline.from_pretrained(BASE)  # {base}\npipe.load_lora_weights({folder!r})"
    how, more = sampling_recipe(facts), ""
    if facts.get("negative") and how["guidance_scale"] > 1:
        more += f", negative_prompt={facts['negative']!r}"
    if facts.get("resolution"):
        more += f", height={facts['resolution']}, width={facts['resolution']}"
    return EXAMPLE.format(load=load, more=more, **how | {"steps": how["steps"] or STEPS})
