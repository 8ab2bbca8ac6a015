"""A fix for torch's compilers in a project whose path has spaces."""

import logging
import shlex


def quote_torch_libraries():
    """Quote torch's library folder, which torch passes to the shell and the linker unquoted.

    Call this before DeepSpeed's extensions or torch.compile's kernels are compiled. A second call
    changes nothing.
    """
    # the module warns about the compiler it finds for CUDA
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # imported late, because the import may touch CUDA
    from torch.utils import cpp_extension

    path = cpp_extension.TORCH_LIB_PATH
    if not path.startswith("'"):
        cpp_extension.TORCH_LIB_PATH = shlex.quote(path)
