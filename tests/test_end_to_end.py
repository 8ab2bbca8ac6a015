"""The three notebooks through papermill with two DeepSpeed processes, killed, resumed, repeated."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from nbs_lib.config import as_parameters
from nbs_lib.pipeline import StageError, configs, execute
from nbs_lib.run import ROOT, Run

TINY = ["prepare.count=24", "train.steps=6", "train.batch_size=2", "train.checkpoint_every=2", "train.log_every=1"]
TINY += ['compare.prompts=["A person holding a cat", "A boy is watching TV"]', "compare.steps=4", "compare.captions=10"]
WEIGHTS = "pytorch_lora_weights.safetensors"
TRAIN = (
    "import sys, json\n"
    "from nbs_lib.config import Train\n"
    "from nbs_lib.train import train\n"
    "train(Train(**json.loads(sys.argv[1])))\n"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """A whole tiny run, in a path with a space and letters beyond ASCII."""
    run = Run(tmp_path_factory.mktemp("my rüns") / "outputs" / "tiny")
    for stage, config in configs("demo", run.folder, TINY).items():
        execute(run, stage, config)
    return run


def test_a_run_leaves_its_files_and_its_record(finished):
    record = finished.read()
    assert record["status"] == "done"
    assert [record["stages"][stage]["status"] for stage in ("prepare", "train", "compare")] == ["done"] * 3
    train = record["stages"]["train"]
    assert train["distributed_type"] == "DEEPSPEED" and train["processes"] == (torch.cuda.device_count() or 2)
    for path in (finished.adapter / WEIGHTS, finished.adapter / "README.md", finished.report, finished.usage):
        assert path.stat().st_size > 0
    assert [json.loads(line)["step"] for line in finished.metrics.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    checkpoints = sorted(path.name for path in finished.checkpoints.iterdir())
    assert checkpoints == ["step-0000002", "step-0000004"]
    frozen = finished.adapter.stat().st_size
    size = sum(f.stat().st_size for f in (finished.checkpoints / checkpoints[0]).rglob("*") if f.is_file())
    assert size < 8e6 and frozen < 8e6, "a checkpoint never holds the frozen base"


def test_the_executed_notebooks_show_pictures_and_no_error(finished):
    for stage, pictures in (("prepare", 1), ("train", 2), ("compare", 2)):
        notebook = nbformat.read(finished.notebook(stage), 4)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        shown = sum("image/png" in o.get("data", {}) or "<img" in str(o.get("data", {}).get("text/html", "")) for o in outputs)
        assert shown >= pictures, stage


def test_the_comparison_counts_its_passes(finished):
    results = json.loads((finished.compare / "results.json").read_text())
    nfe = {name: told["nfe"] for name, told in results["contenders"].items()}
    assert nfe == {"unguided": 4, "guided": 8, "tuned": 4}
    assert results["w_train"] == finished.stage_record("train")["parameters"]["guidance"]
    assert len(results["pictures"]) == 2


def test_a_stock_pipeline_draws_the_same_pictures(finished):
    """No import of nbs_lib: the folder of the base, the adapter's file, and what the card says."""
    source = (
        "import sys, torch\n"
        "from diffusers import StableDiffusionPipeline\n"
        "pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], safety_checker=None)\n"
        "pipe.load_lora_weights(sys.argv[2])\n"
        "seed = torch.Generator().manual_seed(0)\n"
        "pipe('A person holding a cat', num_inference_steps=4, guidance_scale=1, generator=seed).images[0].save(sys.argv[3])\n"
        "assert 'nbs_lib' not in sys.modules\n"
    )
    base, picture = ROOT / "nbs_lib" / "picturebook" / "base", finished.folder / "stock.png"
    subprocess.run([sys.executable, "-c", source, base, finished.adapter, picture], check=True, capture_output=True)
    ours = next((finished.compare / "pictures").glob("p00_s0_tuned.png"))
    stock, tuned = (np.asarray(Image.open(path)).astype(int) for path in (picture, ours))
    assert np.abs(stock - tuned).max() <= 1


def test_nothing_is_done_twice(finished):
    for config in configs("demo", finished.folder, TINY).values():
        assert finished.changed(config) == []
    stages = configs("demo", finished.folder, [*TINY, "train.steps=7"])
    assert finished.changed(stages["prepare"]) == [] and finished.changed(stages["train"]) == ["parameters"]


def copy_prepared(finished: Run, name: str) -> Run:
    """Another run with the same prepared cache."""
    run = Run(finished.folder.parent / name)
    run.folder.mkdir()
    run.cache.symlink_to(os.readlink(finished.cache))
    run.update(stages={"prepare": finished.stage_record("prepare")})
    return run


def train_in_process(run: Run, finished: Run) -> subprocess.Popen:
    parameters = finished.stage_record("train")["parameters"] | {"run": str(run.folder), "steps": 12}
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, json.dumps(parameters)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def test_killed_and_resumed_is_the_same_adapter_bit_for_bit(finished):
    whole, killed = copy_prepared(finished, "whole"), copy_prepared(finished, "killed")
    process = train_in_process(whole, finished)
    assert process.wait(300) == 0, process.stdout.read().decode()
    process = train_in_process(killed, finished)
    wait_for(lambda: (killed.checkpoints / "step-0000004").exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert not killed.adapter.exists()
    (killed.checkpoints / ".step-0000099.part").mkdir()
    assert killed.stage_record("train")["status"] == "running"
    process = train_in_process(killed, finished)
    assert process.wait(300) == 0, process.stdout.read().decode()
    assert killed.stage_record("train")["resumed_from"] >= 4
    assert (killed.adapter / WEIGHTS).read_bytes() == (whole.adapter / WEIGHTS).read_bytes()
    steps = [json.loads(line)["step"] for line in killed.metrics.read_text().splitlines()]
    assert steps == list(range(1, 13))


def wait_for(happened, process: subprocess.Popen, seconds: float = 240):
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None and time.monotonic() < end, "it ended or took too long"
        time.sleep(0.02)


def test_a_failed_stage_leaves_its_notebook_and_a_clear_word(finished):
    run = Run(finished.folder.parent / "early")
    config = configs("demo", run.folder, TINY)["train"]
    with pytest.raises(StageError, match="no finished prepare stage") as failure:
        execute(run, "train", config)
    assert run.notebook("train").is_file() and str(run.notebook("train")) in str(failure.value)
    assert re.search(r"FileNotFoundError", run.notebook("train").read_text())


def test_a_direct_papermill_call_checks_its_parameters_too(finished, tmp_path):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    parameters = as_parameters(configs("demo", tmp_path / "x", TINY)["train"]) | {"steps": "many"}
    with pytest.raises(PapermillExecutionError, match="whole number"):
        papermill.execute_notebook(
            ROOT / "notebooks" / "2_train.ipynb", tmp_path / "out.ipynb", parameters, kernel_name="python3", progress_bar=False
        )
    assert not Path(tmp_path / "x").exists()
