"""The needs of torch's compilers: quoted paths, and the blocks that a denoiser repeats."""

import logging
import shlex
from typing import Any

from diffusers import ModelMixin


def quote_torch_libraries():
    """Quote torch's library folder, which torch passes to the shell and the linker unquoted.

    Call this before DeepSpeed's extensions or torch.compile's kernels are compiled, because a
    project's path may have spaces. A second call changes nothing.
    """
    # the module warns about the compiler it finds for CUDA
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # imported late, because the import may touch CUDA
    from torch.utils import cpp_extension

    path = cpp_extension.TORCH_LIB_PATH
    if not path.startswith("'"):
        cpp_extension.TORCH_LIB_PATH = shlex.quote(path)


def compile_blocks(denoiser: ModelMixin, **options: Any):
    """Compile the blocks that a denoiser repeats, each by itself. options: of torch.compile."""
    if denoiser._repeated_blocks:
        denoiser.compile_repeated_blocks(**options)
        return
    # diffusers names none of SD 3's transformer, and its own method refuses it
    for block in denoiser.transformer_blocks:
        block.compile(**options)
