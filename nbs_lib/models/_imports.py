"""The import of the large libraries without garbage collection.

This module must be imported before any import of these libraries.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let a package look as if it was not installed for a while, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    # of a module that is None, an import fails
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


def import_deepspeed():
    """Import DeepSpeed without MLflow, which its autotuner loads, with pandas, wherever it is."""
    with _hidden("mlflow"):
        import deepspeed  # noqa: F401


def _load():
    was_enabled = gc.isenabled()
    # the collector would walk through everything they load again and again
    gc.disable()
    try:
        # peft would load it for each adapter, and it asks CUDA, so that accelerate forks no process
        # that has it; only an optimizer needs it
        with _hidden("bitsandbytes"):
            _load_libraries()
    finally:
        if was_enabled:
            gc.enable()
    # modules are never garbage: later passes, and the one at the process's end, skip them
    gc.freeze()


def _load_libraries():
    from diffusers import (  # noqa: F401
        AutoencoderKL,
        StableDiffusion3Pipeline,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from peft.import_utils import is_bnb_4bit_available, is_bnb_available
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, T5EncoderModel  # noqa: F401
    from transformers.utils import is_bitsandbytes_available

    # they remember their first answer
    is_bnb_available()
    is_bnb_4bit_available()
    is_bitsandbytes_available()


_load()
