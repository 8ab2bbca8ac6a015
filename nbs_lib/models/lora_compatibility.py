"""The layers of a UNet that other programs load a LoRA on: each looks the keys of a file in kohya's format up by its own names.

Source: https://github.com/kohya-ss/sd-scripts, networks/lora.py; https://github.com/AUTOMATIC1111/stable-diffusion-webui,
extensions-builtin/Lora/networks.py; https://github.com/comfyanonymous/ComfyUI, comfy/lora.py, which loads every layer.
"""

from collections.abc import Iterable

BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")
"""Where sd-scripts looks for layers, and nowhere else."""
FIRST_UPSAMPLER = "up_blocks.0.upsamplers.0.conv"
"""A1111 expects it behind a block without attention, as SD 1.x and 2.x have it; SDXL has attention there."""
ADDED = "add_embedding."
"""The layers for the size of the pictures and the pooled text, of which A1111 knows none."""


def unsupported_layers(layers: Iterable[str]) -> dict[str, list[str]]:
    """Return, for each program, the layers of a UNet on which it loads no LoRA, without an error.

    layers: names of all linear and convolutional layers of the UNet.
    """
    layers = list(layers)
    attends = any(name.startswith("up_blocks.0.attentions.") for name in layers)
    return {
        "sd-scripts": [name for name in layers if not name.startswith(BLOCKS)],
        "A1111": [
            name for name in layers if name.startswith(ADDED) or attends and name == FIRST_UPSAMPLER
        ],
    }
