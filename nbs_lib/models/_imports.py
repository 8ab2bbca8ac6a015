"""The large libraries, imported while Python's garbage collector rests: to be imported before what imports them.

It would go through all that they have loaded again and again, and once more at the process's end. What they have loaded is
never garbage, so it is left out of all later passes as well.
"""

import gc


def _load():
    resting = not gc.isenabled()
    gc.disable()
    try:
        from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel  # noqa: F401
        from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer  # noqa: F401
    finally:
        if not resting:
            gc.enable()
    gc.freeze()


_load()
