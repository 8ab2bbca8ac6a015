"""`onepass run`: three notebooks with two DeepSpeed processes, killed, resumed, repeated."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from nbs_lib.config.validation import as_parameters
from nbs_lib.files import ROOT, read_jsonl
from nbs_lib.pipeline.notebook import StageError, execute
from nbs_lib.pipeline.recipes import configs
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

TINY = [
    "prepare.max_examples=16",
    "train.steps=6",
    "train.batch_size=2",
    "train.checkpointing_steps=2",
    "train.log_every=1",
    "train.validation_examples=4",
]
TINY += [
    'compare.prompts=["A person holding a cat", "A boy is watching TV"]',
    "compare.steps=4",
    "compare.captions=4",
]
WEIGHTS = "pytorch_lora_weights.safetensors"


def command(name: str) -> list[str]:
    parameters = [part for parameter in TINY for part in ("-p", parameter)]
    return [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "nbs_lib",
        "run",
        "demo",
        "--name",
        name,
        *parameters,
    ]


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Callable[[str], Run]:
    """Runs of a copy of the project, with a space and a letter beyond ASCII in their names."""
    folder = tmp_path_factory.mktemp("a projèct") / "copied"
    for name in ("nbs_lib", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return lambda name: Run(folder / "outputs" / f"tëst {name}")


def there(run: Run) -> dict[str, Any]:
    """Return the folder and the environment that a command on a run is started in."""
    project = run.folder.parent.parent
    return {"cwd": project, "env": os.environ | {"PYTHONPATH": str(project)}}


@pytest.fixture(scope="module")
def finished(named) -> Run:
    """A whole tiny run, as the command leaves it. What it printed is in `said.txt`."""
    run = named("whole")
    done = subprocess.run(
        command(run.name), **there(run), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    (run.folder / "said.txt").write_text(done.stdout)
    return run


@pytest.mark.quick
def test_the_command_ends_with_the_numbers_and_the_place_of_the_report(finished):
    said = (finished.folder / "said.txt").read_text()
    assert [line[:12] for line in said.splitlines() if line[:1] == "["] == [
        "[1/3] prepar",
        "[2/3] train:",
        "[3/3] compar",
    ]
    results = json.loads((finished.compare / "results.json").read_text())
    for name, told in results["contenders"].items():
        [line] = [line for line in said.splitlines() if line.startswith(f"{name:10}")]
        assert (
            f"{100 * told['caption_first']['rate']:.0f} %" in line
            and f"{told['seconds']:.3g}" in line
        )
    assert "guidance recovered" in said and f"{results['time_ratio']:.2f} of guided's time" in said
    report = f"outputs/{finished.name}/report.html"
    assert f"report: {report}" in said.splitlines() and finished.report.is_file()
    assert f"\nopen: {report} in a browser" in said and "\ntry:  " in said


def test_the_command_again_keeps_every_stage(finished):
    before = finished.record.read_bytes()
    done = subprocess.run(
        command(finished.name), **there(finished), capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0 and done.stdout.count(": unchanged, kept") == 3
    assert finished.record.read_bytes() == before


def test_a_run_killed_in_each_stage_goes_on_the_same(finished, named):
    """Check that a second command is refused while one works, and a later one ends the same.

    In its training the command alone is killed, and takes its processes along; in the other stages
    every process is.
    """
    run = named("killed")
    process = started(run)
    wait_for(lambda: is_running(run, "prepare"), process)
    kill_all(process)
    process = started(run)
    wait_for(lambda: (run.checkpoints / "step-0000002").exists(), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3, "a kernel and two processes that train"
    second = started(run)
    process.kill()
    process.wait()
    said = second.communicate(timeout=600)[1]  # it came too early, or just in time to go on
    assert second.returncode == 0 or (
        second.returncode == 1 and "being worked on by another process" in said
    ), said
    assert psutil.wait_procs(children, timeout=30)[1] == [], "orphans"
    if second.returncode:
        process = started(run)
        wait_for(lambda: is_running(run, "compare"), process)
        kill_all(process)
    done = subprocess.run(
        command(run.name), **there(run), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert run.stage_record("train")["resumed_from"] >= 2
    assert (run.adapter / WEIGHTS).read_bytes() == (finished.adapter / WEIGHTS).read_bytes()
    pictures = pictures_of(run)
    assert len(pictures) == 6 and pictures == pictures_of(finished)
    assert run.read()["status"] == "done"


def started(run: Run) -> subprocess.Popen:
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(run.name), **there(run), **pipes)


def is_running(run: Run, stage: str) -> bool:
    return run.stage_record(stage).get("status") == "running"


def kill_all(process: subprocess.Popen):
    """Send SIGKILL to a command, its kernel and all of their processes."""
    victims = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    process.communicate()
    psutil.wait_procs(victims, timeout=30)


def pictures_of(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.compare / "pictures").glob("*.png")}


def test_a_run_leaves_its_files_and_its_record(finished):
    record = finished.read()
    assert record["status"] == "done"
    assert [record["stages"][stage]["status"] for stage in ("prepare", "train", "compare")] == [
        "done"
    ] * 3
    train = record["stages"]["train"]
    assert train["distributed_type"] == "DEEPSPEED" and train["processes"] == (
        torch.cuda.device_count() or 2
    )
    for path in (
        finished.adapter / WEIGHTS,
        finished.adapter / "README.md",
        finished.report,
        finished.usage,
    ):
        assert path.stat().st_size > 0
    lines = read_jsonl(finished.metrics)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [0, 6]
    assert (finished.folder / "validation.png").stat().st_size > 0
    checkpoints = sorted(path.name for path in finished.checkpoints.iterdir())
    assert checkpoints == ["step-0000004", "step-0000006"]
    size = sum(
        f.stat().st_size for f in (finished.checkpoints / checkpoints[0]).rglob("*") if f.is_file()
    )
    adapter = (finished.adapter / WEIGHTS).stat().st_size
    assert size < 5 * adapter, (
        "weights and Adam's two moments: a checkpoint never holds the frozen base"
    )


def test_the_executed_notebooks_show_pictures_and_no_error(finished):
    for stage, pictures in (("prepare", 4), ("train", 5), ("compare", 2)):
        notebook = nbformat.read(finished.notebook(stage), 4)
        outputs = [
            output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
        ]
        assert not [
            output
            for output in outputs
            if output.output_type == "error" or output.get("name") == "stderr"
        ]
        shown = sum(
            "image/png" in o.get("data", {})
            or "<img" in str(o.get("data", {}).get("text/html", ""))
            for o in outputs
        )
        assert shown >= pictures, stage
        assert "No batch can be shown" not in str(outputs)


def test_the_comparison_counts_its_passes(finished):
    results = json.loads((finished.compare / "results.json").read_text())
    nfe = {name: told["nfe"] for name, told in results["contenders"].items()}
    assert nfe == {"unguided": 4, "guided": 8, "tuned": 4}
    assert results["w_train"] == finished.stage_record("train")["parameters"]["guidance_scale"]
    assert len(results["pictures"]) == 2


def test_a_stock_pipeline_draws_the_same_pictures(finished):
    """No import of nbs_lib: the folder of the base, the adapter's file, and what the card says."""
    source = (
        "import sys, torch\n"
        "from diffusers import StableDiffusionPipeline\n"
        "pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], safety_checker=None)\n"
        "pipe.load_lora_weights(sys.argv[2])\n"
        "seed = torch.Generator().manual_seed(0)\n"
        "options = dict(num_inference_steps=4, guidance_scale=1, generator=seed)\n"
        "pipe('A person holding a cat', **options).images[0].save(sys.argv[3])\n"
        "assert 'nbs_lib' not in sys.modules\n"
    )
    base, picture = ROOT / "nbs_lib" / "picturebook" / "base", finished.folder / "stock.png"
    subprocess.run(
        [sys.executable, "-c", source, base, finished.adapter, picture],
        check=True,
        capture_output=True,
    )
    ours = next((finished.compare / "pictures").glob("p00_s0_tuned.png"))
    stock, tuned = (np.asarray(Image.open(path)).astype(int) for path in (picture, ours))
    assert np.abs(stock - tuned).max() <= 1


def test_nothing_is_done_twice(finished):
    for config in configs("demo", finished.folder, TINY).values():
        assert finished.changed(config) == []
    stages = configs("demo", finished.folder, [*TINY, "train.steps=7"])
    assert finished.changed(stages["prepare"]) == [] and finished.changed(stages["train"]) == [
        "parameters"
    ]


def wait_for(happened, process: subprocess.Popen, seconds: float = 240):
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None and time.monotonic() < end, "it ended or took too long"
        time.sleep(0.02)


def test_a_failed_stage_leaves_its_notebook_and_a_clear_word(tmp_path):
    run = Run(tmp_path / "early")
    config = configs("demo", run.folder, TINY)["train"]
    with pytest.raises(StageError, match="no finished prepare stage") as failure:
        execute(run, "train", config)
    assert run.notebook("train").is_file() and str(run.notebook("train")) in str(failure.value)
    assert re.search(r"FileNotFoundError", run.notebook("train").read_text())


def test_a_direct_papermill_call_checks_its_parameters_too(tmp_path):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    parameters = as_parameters(configs("demo", tmp_path / "x", TINY)["train"]) | {"steps": "many"}
    with pytest.raises(PapermillExecutionError, match="whole number"):
        papermill.execute_notebook(
            ROOT / "notebooks" / "2_train.ipynb",
            tmp_path / "out.ipynb",
            parameters,
            kernel_name="python3",
            progress_bar=False,
        )
    assert not Path(tmp_path / "x").exists()
