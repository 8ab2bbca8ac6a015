import json
import shutil

import pytest

from nbs_lib.run.run import Run


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread):
    """Every module of this room samples pictures, so each runs on one thread."""


@pytest.fixture
def trained(base, adapter, run_folder) -> Run:
    """A run as 2_train leaves it, as far as comparing goes."""
    run = Run(run_folder)
    run.cache.mkdir(parents=True)
    (run.cache / "cache.json").write_text(
        json.dumps({"base": "embedded", "base_hash": base.hash, "resolution": 128})
    )
    shutil.copytree(adapter, run.adapter)
    run.update(stages={"train": {"status": "done", "outputs": {}}})
    return run
