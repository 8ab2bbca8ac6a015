"""trackio in an environment of its own, because it needs an older Pillow than the tested one."""

import json
import os
import sqlite3
import subprocess
import sys
import tomllib
import venv
from contextlib import closing
from pathlib import Path

import pytest

from nbs_lib.files import ROOT, read_jsonl
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

TRAINING = """
import sys
from nbs_lib.config import Train
from nbs_lib.train import train

train(
    Train(
        sys.argv[1],
        trackers=["trackio"],
        steps=4,
        batch_size=1,
        log_every=1,
        checkpointing_steps=2,
        validation_steps=2,
        validation_examples=2,
        num_validation_images=1,
        num_processes=1,
    )
)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory, skip_or_fail) -> Path:
    """Return the Python of an environment with trackio beside the packages of this one."""
    folder = tmp_path_factory.mktemp("trackio")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pin for pin in pins if not pin.startswith("pillow==")))
    venv.create(folder / "venv", with_pip=False)
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    # after the environment's own packages
    (packages / "shared.pth").write_text(str(Path(pytest.__file__).parent.parent))
    interpreter = folder / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", interpreter, "install", "-q"]
    command += ["-c", constraints, *project["optional-dependencies"]["trackio"]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        skip_or_fail(f"trackio cannot be installed: {done.stderr}")
    return interpreter


def trained(python: Path, run: Run) -> str:
    """Train, or go on; return the output."""
    variables = {name: value for name, value in os.environ.items() if "TRACKIO" not in name}
    command = [python, "-W", "ignore", "-c", TRAINING, run.folder]
    options = {"cwd": ROOT, "env": variables, "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=600, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tracker trackio is off" not in done.stdout + done.stderr
    return done.stdout


def rows(run: Run, columns: str, table: str) -> list[tuple]:
    """Return rows of trackio's own database."""
    with closing(sqlite3.connect(run.folder / "trackers" / "trackio" / "onepass.db")) as database:
        return database.execute(f"SELECT {columns} FROM {table}").fetchall()


def test_trackio_has_the_numbers_and_pictures_and_continues_its_run(
    python, new_run, prepared_tiny, interrupted, tmp_path
):
    run = new_run(prepared_tiny)
    trained(python, run)
    lines = {line["step"]: line["loss"] for line in read_jsonl(run.metrics) if "loss" in line}
    logged = [
        (step, json.loads(metrics)) for step, metrics in rows(run, "step, metrics", "metrics")
    ]
    losses = {step: values["loss"] for step, values in logged if "loss" in values}
    assert losses == pytest.approx(lines) and list(lines) == [1, 2, 3, 4]
    assert [step for step, values in logged if "validation" in values] == [0, 2, 4]
    pictures = (run.folder / "trackers" / "trackio" / "media").rglob("*.png")
    # the targets are a picture too
    assert len(list(pictures)) == 4
    [(config,)] = rows(run, "config", "configs")
    assert json.loads(config)["batch_size"] == 1
    # under its own name, by which trackio knows it
    again = Run(interrupted(run).folder.rename(tmp_path / run.name))
    assert "goes on from step 2 of 4" in trained(python, again)
    names = {name for (name,) in rows(again, "run_name", "metrics")}
    assert len(names) == 1 and json.loads((again.folder / "trackers" / "ids.json").read_text())
