"""The folder of torch's compiled extensions, which DeepSpeed's first start fills."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch._appdirs import user_cache_dir

from ...files import value_hash
from ..errors import LaunchError


def extensions_folder() -> Path:
    """Return the folder of torch's compiled extensions, one for each Python environment."""
    # as torch.utils.cpp_extension finds its root, but importing that may touch CUDA
    root = Path(user_cache_dir("torch_extensions")).resolve()
    # environments would overwrite one another's extensions
    default = root / f"onepass-{value_hash(sys.prefix)[:8]}"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or default)


@contextmanager
def exclusive_compilation() -> Iterator[None]:
    """Remove the locks that killed compilations left; torch would wait for their end for ever.

    Errors: LaunchError if the folder cannot be made.
    """
    root = extensions_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise LaunchError(
            f"{root} cannot be made, where DeepSpeed's extensions are compiled: "
            f"{failure.strerror}; name another folder in TORCH_EXTENSIONS_DIR, or give "
            "deepspeed = False"
        ) from None
    with (root / "onepass.lock").open("a") as file:
        # every training holds our lock, so if nobody else does, torch's locks belong to nobody
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for lock in root.rglob("lock"):
                lock.unlink(missing_ok=True)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
