"""What several rooms' tests need: a run folder, a compared run, and stages run in a fresh process as a notebook would."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbs_lib.config import Compare
from nbs_lib.files import ROOT
from nbs_lib.run import Run

W = 2.5  # the guidance scale that the adapter says it was trained for
HOSTILE = "It's </code> & <script>name = 1</script>"  # what it would do shows as window.name


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch, here and in processes that a test starts."""
    import torch  # here and below: most tests do not need it

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(count))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for each other took 30 times as long."""
    with threads(1):
        yield


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run's folder, in a path with a space and letters beyond ASCII."""
    return tmp_path / "my rüns" / "outputs" / "tiny"


@pytest.fixture
def python():
    """Run Python source in a process of its own: forks and kills happen there, not in the test runner."""

    def call(source: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "ignore", "-c", source, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)

    return call


@pytest.fixture(scope="session")
def base():
    from nbs_lib.models import find_base

    return find_base("embedded")


@pytest.fixture(scope="session")
def adapter(base, tmp_path_factory) -> Path:
    """An adapter that changes pictures well beyond rounding, though nobody trained it."""
    import torch

    from nbs_lib.adapter import attach, save_adapter

    folder, generator = tmp_path_factory.mktemp("run") / "adapter", torch.Generator().manual_seed(1)
    with threads(1):
        unet = base.unet()
        attach(unet, rank=4, alpha=4.0, seed=0)
        for name, parameter in unet.named_parameters():
            if "lora_B" in name:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        save_adapter(folder, unet, {"base": "embedded", "base_hash": base.hash, "w_train": W})
    return folder


@pytest.fixture(scope="session")
def compared(base, adapter, tmp_path_factory) -> Run:
    """A whole comparison of two prompts, one of them hostile, as 3_compare leaves it; for reading only."""
    from nbs_lib.compare import compare

    run = Run(tmp_path_factory.mktemp("my rüns") / "outputs" / "tiny")
    run.cache.mkdir(parents=True)
    (run.cache / "cache.json").write_text(json.dumps({"base": "embedded", "base_hash": base.hash, "resolution": 64}))
    run.adapter.symlink_to(adapter)
    run.update(stages={"train": {"status": "done", "outputs": {}, "parameters": {"note": HOSTILE}, "seconds": 1.0}})
    run.metrics.write_text('{"step": 1, "loss": 0.25}\n{"step": 6, "loss": 0.125}\n{"step": 7, "lo')  # killed while writing
    with threads(1):
        compare(Compare(str(run.folder), prompts=[HOSTILE, "A boy is watching TV"], seeds=[3], steps=2, captions=10))
    return run
