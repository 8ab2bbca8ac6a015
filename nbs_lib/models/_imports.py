"""The import of the large libraries without garbage collection.

This module must be imported before any import of these libraries.
"""

import gc
import sys


def import_deepspeed():
    """Import DeepSpeed without MLflow, which its autotuner loads, with pandas, wherever it is."""
    if "mlflow" in sys.modules:
        import deepspeed  # noqa: F401

        return
    # of a module that is None, an import fails
    sys.modules["mlflow"] = None
    try:
        import deepspeed  # noqa: F401
    finally:
        del sys.modules["mlflow"]


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
