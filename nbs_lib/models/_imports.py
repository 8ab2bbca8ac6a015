"""The import of the large libraries without garbage collection.

This module must be imported before any import of these libraries.
"""

import gc


def _load():
    was_enabled = gc.isenabled()
    # the collector would walk through everything they load again and again
    gc.disable()
    try:
        from diffusers import (  # noqa: F401
            AutoencoderKL,
            StableDiffusion3Pipeline,
            StableDiffusionPipeline,
            UNet2DConditionModel,
        )
        from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, T5EncoderModel  # noqa: F401
    finally:
        if was_enabled:
            gc.enable()
    # modules are never garbage: later passes, and the one at the process's end, skip them
    gc.freeze()


_load()
