from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nbs_lib.adapter import attach, save_adapter
from nbs_lib.models import Base, find_base

W = 2.5  # the guidance scale that the adapter says it was trained for


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Here and in processes that a test starts: on a busy machine, threads that wait for each other took 30 times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def base() -> Base:
    return find_base("embedded")


@pytest.fixture(scope="session")
def adapter(base, tmp_path_factory) -> Path:
    """An adapter that changes pictures well beyond rounding, though nobody trained it."""
    unet, folder = base.unet(), tmp_path_factory.mktemp("run") / "adapter"
    attach(unet, rank=4, alpha=4.0, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    save_adapter(folder, unet, {"base": "embedded", "base_hash": base.hash, "w_train": W})
    return folder
