"""The denoiser compiled by torch.compile, for the passes of a training alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import ModelMixin

from ..config import Train
from ..models._torch_compilers import compile_blocks, quote_torch_libraries

# Graphs of one function: by shape of the latents, rows, adapter on or off, with gradients or not.
MAX_GRAPHS = 64
# The environment variable that names inductor's folder of compiled code.
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def compile_denoiser(denoiser: ModelMixin, config: Train):
    """Compile a denoiser, or the blocks that it repeats, when each shape first passes.

    The adapter on and the adapter off are two graphs of the same weights.
    """
    if config.compile == "off":
        return
    # torch's compiler command breaks at a space in its own path
    quote_torch_libraries()
    keep_compiled_code()
    # DeepSpeed was imported without torch's compiler
    torch._dynamo.config.disable = False
    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    # CUDA graphs, which need static shapes; of the blocks each would have one, and copy its inputs
    options = {"triton.cudagraphs": config.compile == "whole" and denoiser.device.type == "cuda"}
    if config.compile == "blocks":
        compile_blocks(denoiser, dynamic=False, options=options)
    else:
        denoiser.compile(dynamic=False, options=options)


@contextmanager
def eager_passes(compiled: bool) -> Iterator[None]:
    """Let a compiled denoiser pass eagerly for a while.

    Validation pictures and the last batch of held-out examples have other shapes, and a graph for
    each would take longer than its passes.
    """
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def begin_pass(config: Train):
    """Let CUDA graphs use the memory of the pass before. To be called before each pass."""
    if config.compile == "whole":
        torch.compiler.cudagraph_mark_step_begin()


def compile_seconds() -> float:
    """Return the seconds that this process has compiled so far."""
    return torch._dynamo.utils.calculate_time_spent()["total_wall_time"]


def keep_compiled_code():
    """Let later trainings find what this process compiles, unless the user chose a folder."""
    # torch's own is a temporary folder, which the next start of the machine empties
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault(CACHE_VARIABLE, str(caches / "onepass" / "inductor"))
