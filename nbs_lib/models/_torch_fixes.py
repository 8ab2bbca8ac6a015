"""What torch has compiled, in a project whose path has spaces."""

import logging
import shlex


def quote_torch_libraries():
    """Have torch's own folder quoted, which it gives to the shell and the linker as it stands, spaces and all.

    To be called before DeepSpeed's extensions or torch.compile's kernels are compiled; a second time changes nothing.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # it says where it found a compiler for CUDA
    from torch.utils import cpp_extension  # not before it is needed: its import may touch CUDA

    path = cpp_extension.TORCH_LIB_PATH
    if not path.startswith("'"):
        cpp_extension.TORCH_LIB_PATH = shlex.quote(path)
