"""A picture's settings as text that A1111 and the programs that follow it read from a PNG."""

import json
from typing import Any

INFOTEXT_KEY = "parameters"  # key of the PNG's text
# A1111's names of diffusers' schedulers.
SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "EulerDiscreteScheduler": "Euler",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "UniPCMultistepScheduler": "UniPC",
    "LCMScheduler": "LCM",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "FlowMatchLCMScheduler": "LCM",
}


def infotext(metadata: dict[str, Any], width: int, height: int) -> str:
    """Return the text: the prompt, the negative prompt, and a line of names and values.

    metadata: of a picture of the playground; width and height are its own, in pixels
    Source: AUTOMATIC1111/stable-diffusion-webui, modules/infotext_utils.py
    """
    settings = {
        "Steps": metadata["steps"],
        "Sampler": SAMPLERS.get(metadata["scheduler"], metadata["scheduler"]),
        "CFG scale": f"{metadata['w']:g}",
        "Seed": metadata["seed"],
        "Size": f"{width}x{height}",
        "Model": metadata["base"],
        # names that A1111 does not know are shown and not used
        "Contender": metadata["contender"],
        "Run": metadata["run"],
        "Version": "Onepass",
    }
    # one line each: a line break would end the prompt
    lines = [_one_line(metadata["prompt"])]
    # a single pass does not use it
    if metadata["negative"] and metadata["w"] > 1:
        lines.append(f"Negative prompt: {_one_line(metadata['negative'])}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def _one_line(text):
    return " ".join(text.split())


def _quoted(value):
    """Return a value as it may stand between commas."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text
