"""The progress of a stage: read from its run's files, shown in a terminal and in a plain log."""

import io
import json
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.spinner import Spinner

from nbs_lib.pipeline.progress import Progress, display, format_duration, print_progress
from nbs_lib.pipeline.progress.bars import BAR, read_bar
from nbs_lib.pipeline.progress.reader import ProgressReader, RunProgress
from nbs_lib.run.run import Run

TRAINING = Progress(
    "train",
    54.2,
    "training",
    0.3,
    ("step 120 of 400", "loss 0.0312", "21.5 examples/s", "1 min 20 s left"),
)


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run(tmp_path / "run")
    run.update(stages={"train": {"status": "running", "resolved": {"steps": 300}}})
    return run


def add_phase(run: Run, phase: str):
    with run.usage.open("a") as file:
        file.write(json.dumps({"seconds": 1.0, "stage": phase}) + "\n")


def test_a_training_tells_phase_step_loss_rate_and_time_left(run):
    # of an earlier training
    run.metrics.write_text('{"step": 300, "loss": 9.0, "seconds": 1}\n')
    add_phase(run, "finish")
    reader = ProgressReader(run, "train")
    assert str(reader.read()) == "train 0 s: planning the memory"
    add_phase(run, "build")
    assert str(reader.read()) == "train 0 s: building the engine"
    add_phase(run, "train")
    # samples of the usage push the phase out of the part that is read
    with run.usage.open("a") as file:
        file.write('{"seconds": 2.0, "cpu_percent": 99}\n' * 500)
    run.metrics.write_text('{"step": 100, "loss": 0.5, "examples_per_s": 21.46}\n')
    assert str(reader.read()) == (
        "train 0 s: training, step 100 of 300, loss 0.5000, 21.5 examples/s"
    )
    reader.first_step = (100, time.monotonic() - 10)
    add_phase(run, "validate")
    run.metrics.write_text(
        '{"step": 150, "loss": 0.25}\n{"step": 150, "held_out_loss": 1}\n{"step": 2'
    )
    progress = reader.read()
    assert progress.fraction == 0.5
    assert str(progress) == "train 0 s: validating, step 150 of 300, loss 0.2500, 30 s left"
    run.update_stage("train", parameters={"early_stopping_patience": 2})
    assert reader.read().facts[-1] == "at most 30 s left"
    # it counts down until the next line of metrics
    reader.last_step = (150, time.monotonic() - 12)
    reader.first_step = (100, time.monotonic() - 22)
    assert reader.read().facts[-1] == "at most 18 s left"


def test_a_stage_that_prints_nothing_tells_what_it_waits_for(run):
    reader = ProgressReader(run, "prepare")
    assert reader.read().activity == "loading the libraries"
    run.update_stage("prepare", status="running")
    assert reader.read().activity == "starting"
    run.log.write_text("2026-01-01T00:00:00+00:00  [1/3] prepare: asked for\n\x1b[31mcut")
    assert reader.read().activity == "cut", "without colours, and only of this stage"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "read:  83%|########  | 640/768 [00:02<00:10, 219.08 examples/s]",
            "reading and encoding, 640 of 768 examples, 219.08 examples/s, 10 s left",
        ),
        ("read: 100%|##########| 768/768 [00:02<00:00, 259.36 examples/s]", "encoding, 768 of 768"),
        ("  0%|          | 0/9 [00:00<?, ? answers/s]", "asking the teacher, 0 of 9 answers"),
        (
            "guided at 3:  25%|███▎    | 140/570 [00:23<1:01:09,  1.18s/picture]",
            "sampling guided at 3, 140 of 570 pictures, 1.18 s/picture, 1 h 1 min left",
        ),
        # tqdm cuts a line that is longer than it may be
        ("guided:  85%|████▌| 410/480 [03:03<00:27,  2.56picture/", "sampling guided, 410 of 480"),
        ("timing: 100%|████| 3/3 [00:4", "measuring, 3 of 3"),
        (
            "timing:  33%|█ | 1/3 [00:14<00:28, 14.29s/round]",
            "timing the contenders, 1 of 3 rounds",
        ),
        ("captions:  33%|██▎ | 1/3 [00:01<00:02,  1.04s/contender]", "measuring captions, 1 of 3"),
    ],
)
def test_a_bar_is_read_into_words(line, text):
    activity, fraction, facts = read_bar(BAR.match(line.strip()))
    assert ", ".join([activity, *facts]).startswith(text) and 0 <= fraction <= 1


def test_the_progress_of_another_process_follows_its_stages(run):
    watched = RunProgress(Run(run.folder.with_name("absent")))
    assert str(watched.read()) == "0 s: starting"
    watched = RunProgress(run)
    assert watched.read().stage == "train"
    run.update_stage("train", status="done")
    run.update_stage("compare", status="running")
    assert watched.read().stage == "compare"


def rendered(width: int, *labels: str) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    spinner = Spinner("dots")
    console.print(display.render_progress(dict.fromkeys(labels, TRAINING), spinner, width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_the_display_never_wraps(width):
    lines = rendered(width, "")
    assert len(lines) == 2 and all(len(line) <= width for line in lines)
    assert "train 54 s" in lines[0]
    if width == 120:
        assert "training" in lines[0] and "━" in lines[1]
        assert lines[1].endswith("loss 0.0312  21.5 examples/s  1 min 20 s left")


def test_the_display_of_a_sweep_has_a_row_for_each_member():
    lines = rendered(100, "demo-sweep.rank-4", "demo-sweep.rank-8")
    assert [line.split()[-4] for line in lines[::2]] == ["train"] * 2
    assert "demo-sweep.rank-4" in lines[0] and "demo-sweep.rank-8" in lines[2]


def test_plain_lines_come_every_few_seconds_at_first_and_seldom_later(monkeypatch):
    assert display.FIRST_INTERVAL <= 5 and display.FIRST_INTERVAL * display.FIRST_LINES >= 60
    monkeypatch.setattr(display, "FIRST_INTERVAL", 0.01)
    lines = []
    with display.show_progress(lambda: {"": TRAINING, "a": TRAINING}, lines.append):
        time.sleep(0.5)
    # twelve of each, and the next ones would come after half a minute
    assert len(lines) == 2 * display.FIRST_LINES
    assert lines[0] == f"      {TRAINING}" and lines[1] == f"      a: {TRAINING}"


def test_a_log_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    assert display.can_move(print_progress) and not display.can_move([].append)
    monkeypatch.setenv("CI", "1")
    assert not display.can_move(print_progress)
    monkeypatch.delenv("CI")
    monkeypatch.setenv("TERM", "dumb")
    assert not display.can_move(print_progress)


def test_durations():
    assert [format_duration(seconds) for seconds in (4, 200, 7500)] == [
        "4 s",
        "3 min 20 s",
        "2 h 5 min",
    ]


def read_terminal(file: int) -> bytes:
    """Return what a terminal shows next, b"" once its last process has ended."""
    try:
        return os.read(file, 1 << 16)
    except OSError:
        return b""


@pytest.mark.slow
def test_a_run_in_a_terminal_has_a_live_display(project):
    ours, theirs = os.openpty()
    command = [sys.executable, "-W", "ignore", "-m", "nbs_lib", "run", "demo", "--name", "moving"]
    environment = os.environ | {
        "PYTHONPATH": str(project.folder),
        "DOES_prepare": "time.sleep(1.5)",
        "TERM": "xterm",
        "COLUMNS": "100",
    }
    environment.pop("CI", None)
    process = subprocess.Popen(
        command,
        cwd=project.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b"".join(iter(lambda: read_terminal(ours), b"")).decode()
    os.close(ours)
    lines = process.communicate()[0]
    assert process.returncode == 0 and "[1/3] prepare: not done yet" in lines
    assert "prepare" in shown and "loading the libraries" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 3, "the cursor is back"
    assert "prepare 0 s" not in lines, "no plain lines beside it"


@pytest.mark.slow
def test_a_sweep_tells_the_progress_of_its_members(project):
    command = ["sweep", "demo", "--name", "watched", "-p", "train.rank=2,4", "--jobs", "2"]
    done = project.onepass(*command, DOES_prepare="time.sleep(11)")
    assert re.search(r"^      watched\.rank-4: prepare \d+ s: \w+", done.stdout, re.M), done.stdout
