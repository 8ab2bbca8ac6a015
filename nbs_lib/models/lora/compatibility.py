"""The layers of a denoiser on which other programs load a LoRA.

Each program looks up the keys of a file in kohya's format by its own names of the layers. ComfyUI
loads every layer. The layers of SD 3's transformer have diffusers' names in a file, which ComfyUI
knows as well; sd-scripts has its own layout of them, and A1111 none.

Source: https://github.com/kohya-ss/sd-scripts, networks/lora.py;
https://github.com/AUTOMATIC1111/stable-diffusion-webui, extensions-builtin/Lora/networks.py;
https://github.com/comfyanonymous/ComfyUI, comfy/lora.py.
"""

from collections.abc import Iterable

# The only parts of a UNet where sd-scripts looks for layers.
UNET_BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")
# A1111 expects it behind a block without attention, as in SD 1.x and 2.x; SDXL has attention there.
FIRST_UPSAMPLER = "up_blocks.0.upsamplers.0.conv"
# The layers for picture size and pooled text, which A1111 does not know.
ADDED_EMBEDDING = "add_embedding."
TRANSFORMER_BLOCKS = "transformer_blocks."


def unsupported_layers(layers: Iterable[str]) -> dict[str, list[str]]:
    """Return, for each program, the layers on which it loads no LoRA and reports no error.

    layers: names of all linear and convolutional layers of the denoiser
    """
    names = list(layers)
    if any(name.startswith(TRANSFORMER_BLOCKS) for name in names):
        return {}
    outside = [name for name in names if not name.startswith(UNET_BLOCKS)]
    unknown = (ADDED_EMBEDDING,)
    if any(name.startswith("up_blocks.0.attentions.") for name in names):
        unknown += (FIRST_UPSAMPLER,)
    return {"sd-scripts": outside, "A1111": [name for name in names if name.startswith(unknown)]}
