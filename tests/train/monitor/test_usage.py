"""The usage of a training, recorded from the kernel, and its curves."""

import json
import math
from random import Random
from types import SimpleNamespace

import pynvml
import pytest
from PIL import Image

from nbs_lib.files import read_jsonl
from nbs_lib.run.run import Run
from nbs_lib.train.monitor import hardware, usage
from nbs_lib.train.monitor.loss_plot import loss_figure, running_mean
from nbs_lib.train.monitor.phases import mark_phase
from nbs_lib.train.monitor.plots import draw_curves
from nbs_lib.train.monitor.usage import UsageMonitor

RANKS = """
import os, sys, time
from nbs_lib.run.run import Run
from nbs_lib.train.monitor.phases import mark_phase
from nbs_lib.train.monitor import usage

usage.INTERVAL = 0.1
run = Run(sys.argv[1])

def rank(number):
    os.environ.update(RANK=str(number), LOCAL_WORLD_SIZE="2")
    mark_phase(run, "build")
    block = bytearray(b"x" * ((64 + 64 * number) << 20))
    mark_phase(run, "train")
    end = time.monotonic() + 2
    while time.monotonic() < end:  # the second one works, the first one sleeps
        number or time.sleep(0.01)
    os._exit(len(block) & 0)

with usage.UsageMonitor(run) as monitor:
    pids = []
    for number in (0, 1):
        if not (pid := os.fork()):
            rank(number)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
print(monitor.seconds, monitor.share)
"""


@pytest.fixture
def run(run_folder) -> Run:
    run = Run(run_folder)
    run.folder.mkdir(parents=True)
    return run


def test_usage_is_recorded_by_rank_and_phase(run, python):
    process = python(RANKS, run.folder)
    assert process.returncode == 0, process.stderr
    seconds, share = map(float, process.stdout.split())
    lines = read_jsonl(run.usage)
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    assert [line["stage"] for line in lines if "stage" in line] == ["build", "train", None]
    looks = [line for line in lines if "processes" in line]
    both = [look for look in looks if len(look["processes"]) == 3]
    assert len(both) > 4 and all(0 <= look["cpu_percent"] <= 100 for look in looks)
    last = {entry["rank"]: entry for entry in both[-2]["processes"]}
    assert set(last) == {"kernel", 0, 1}
    assert last[1]["memory_mib"] - last[0]["memory_mib"] == pytest.approx(64, abs=4)
    assert last[1]["cpu_percent"] > 5 * last[0]["cpu_percent"]
    assert seconds > 2 and 0 < share < 1 and not list(run.folder.glob(".stages*"))


def test_the_share_counts_the_busy_time_of_the_thread(run, monkeypatch):
    def work(_):
        total = 0
        for i in range(3_000_000):
            total += i
        return {"processes": [], "total": total}

    monkeypatch.setattr(hardware.HardwareSampler, "sample", work)
    monkeypatch.setattr(usage, "INTERVAL", 0.01)
    monkeypatch.setattr(usage, "SAMPLING_SHARE", 1.0)
    with UsageMonitor(run) as watching:
        mark_phase(run, "train")
        while run.usage.read_text().count("total") < 5:
            pass
    assert watching.share * watching.seconds > 0.05, (
        "at least five times it counted to three millions"
    )


def test_costly_samples_come_less_often(run, monkeypatch):
    costs = iter([0.5] * 100)
    monkeypatch.setattr(usage, "_cost", lambda work: (work(), next(costs))[1])
    monkeypatch.setattr(usage, "INTERVAL", 0.01)
    with UsageMonitor(run) as watching:
        mark_phase(run, "train")
        while run.usage.read_text().count("processes") < 1:
            pass
        assert not watching._stop.wait(0.5)
    assert run.usage.read_text().count("processes") == 1, (
        "the next one is due when 0.5 s are 0.4 % of what went by"
    )


def test_a_resumed_training_continues_usage_jsonl(run):
    run.usage.write_text(
        '{"seconds": 7.0, "cpu_percent": 50.0, "processes": []}\n{"seconds": 8.0, "cpu'
    )
    with UsageMonitor(run, resumed=True):
        pass
    first, end = read_jsonl(run.usage)
    assert first["seconds"] == 7.0 and end["stage"] is None and 7.0 <= end["seconds"] < 8.0
    with UsageMonitor(run):
        pass
    assert [line["stage"] for line in read_jsonl(run.usage)] == [None]


def test_the_placeholder_stays_until_the_first_loss(run, monkeypatch):
    pictures = []
    monkeypatch.setattr(usage, "_display_handle", lambda: SimpleNamespace(update=pictures.append))
    run.metrics.write_text('{"step": 1, "lo')
    with UsageMonitor(run):
        pass
    assert pictures == []
    run.metrics.write_text('{"step": 1, "loss": 0.5}\n')
    with UsageMonitor(run):
        pass
    assert [picture._repr_png_()[1:4] for picture in pictures] == [b"PNG"]


def test_the_curve_is_redrawn_only_after_new_metrics(run, monkeypatch):
    pictures = []
    monkeypatch.setattr(usage, "_display_handle", lambda: SimpleNamespace(update=pictures.append))
    monkeypatch.setattr(usage, "INTERVAL", 0.01)
    monkeypatch.setattr(usage, "SAMPLING_SHARE", 1.0)
    monkeypatch.setattr(usage, "DRAWING_SHARE", 1.0)
    assert usage.REDRAW_INTERVAL <= 3
    monkeypatch.setattr(usage, "REDRAW_INTERVAL", 0.02)
    run.metrics.write_text('{"step": 1, "loss": 0.5}\n')
    with UsageMonitor(run) as watching:
        mark_phase(run, "train")
        while len(pictures) < 1:
            pass
        looks = run.usage.read_text().count("processes")
        while run.usage.read_text().count("processes") < looks + 20:
            pass
        assert len(pictures) == 1
        with run.metrics.open("a") as file:
            file.write('{"step": 2, "loss": 0.4}\n')
        while len(pictures) < 2:
            pass
    assert len(pictures) == 2 and watching.share > 0


def test_pictures_take_at_most_three_percent_of_a_core(run, monkeypatch):
    pictures, costs = [], iter([0.0, 0.5] * 1000)  # a look, and then a picture
    monkeypatch.setattr(usage, "_display_handle", lambda: SimpleNamespace(update=pictures.append))
    monkeypatch.setattr(usage, "_cost", lambda work: (work(), next(costs))[1])
    monkeypatch.setattr(usage, "INTERVAL", 0.01)
    monkeypatch.setattr(usage, "REDRAW_INTERVAL", 0.02)
    run.metrics.write_text('{"step": 1, "loss": 0.5}\n')
    with UsageMonitor(run) as watching:
        mark_phase(run, "train")
        while len(pictures) < 1:
            pass
        run.metrics.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.5}\n')
        assert not watching._stop.wait(0.3)
        assert len(pictures) == 1, "the next one is due after 0.5 s / 0.03"


@pytest.mark.parametrize("count", [10, 40, 400])
def test_the_running_mean_lies_amid_falling_points(count):
    rng = Random(count)
    losses = [(0.1 + 5 * math.exp(-i / 3)) * rng.lognormvariate(0, 0.5) for i in range(count)]
    below = (
        sum(loss < mean for loss, mean in zip(losses, running_mean(losses), strict=True)) / count
    )
    assert 0.3 <= below <= 0.7
    assert running_mean([2.0] * count) == pytest.approx([2.0] * count)


def test_one_spike_moves_the_mean_near_it_alone():
    means = running_mean([9.0, *[0.1] * 30])
    assert means[0] < 0.5 and means[3:] == pytest.approx(0.1)
    assert list(running_mean([])) == [] and running_mean([0.3]) == pytest.approx([0.3])


def test_steps_are_whole_on_the_axis(run):
    for steps in ((1,), (1, 2), (5, 10, 15)):
        run.metrics.write_text("".join(f'{{"step": {step}, "loss": 0.5}}\n' for step in steps))
        assert all(tick.is_integer() for tick in loss_figure(run).axes[0].get_xticks())


def test_the_best_step_is_marked_until_weights_are_saved(run):
    def marked(*weights_step: int) -> list[str]:
        _, labels = loss_figure(run, *weights_step).axes[0].get_legend_handles_labels()
        return [label for label in labels if "step" in label]

    run.metrics.write_text('{"step": 2, "loss": 0.5}\n')
    assert marked() == []
    validations = [(2, 0.5, 2), (4, 0.4, 4), (6, 0.6, 4)]
    keys = ("step", "held_out_loss", "best_step")
    with run.metrics.open("a") as file:
        file.writelines(json.dumps(dict(zip(keys, v, strict=True))) + "\n" for v in validations)
    assert marked() == ["best so far, step 4"]
    assert marked(6) == ["saved weights, of step 6"]


def test_a_number_that_a_gpu_does_not_give_is_left_out(monkeypatch):
    class Memory:
        used = 3 << 30

    def refuse(_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", refuse)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda _: Memory)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda _: 412_600)
    assert hardware.gpu_use(object()) == {"memory_mib": 3072.0, "power_w": 412.6}


def test_curves_are_drawn_from_the_files_of_a_killed_run(run):
    run.metrics.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n{"step": 3, "lo')
    look = {
        "cpu_percent": 50.0,
        "processes": [{"rank": 0, "cpu_percent": 99.0, "memory_mib": 800.0}],
    }
    gpu = {"gpus": [{"memory_mib": 1000.0, "power_w": 300.0}]}
    lines = [
        {"seconds": 0.5, "stage": "train"},
        {"seconds": 1.0} | look,
        {"seconds": 2.0} | look | gpu,
    ]
    run.usage.write_text("\n".join(map(json.dumps, lines)) + '\n{"seconds": 3.')
    draw_curves(run, 3)
    assert Image.open(run.folder / "loss.png").size == (770, 330)
    with Image.open(run.folder / "usage.png") as picture:
        assert picture.width == 770 and picture.height > 330
