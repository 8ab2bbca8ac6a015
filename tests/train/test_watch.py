import json

import pytest
from PIL import Image

from nbs_lib.run import Run
from nbs_lib.train.watch import Watch, draw_curves, usage


@pytest.fixture
def run(run_folder) -> Run:
    run = Run(run_folder)
    run.folder.mkdir(parents=True)
    return run


def test_usage_is_noted_each_second_with_the_children_s_memory(run, monkeypatch):
    monkeypatch.setattr("nbs_lib.train.watch.FIRST", 0.1)
    monkeypatch.setattr("nbs_lib.train.watch.EVERY", 0.1)
    with Watch(run) as watch:
        block = bytearray(64 << 20)
        while not run.usage.read_text().count("\n") > 2:
            pass
        del block
    lines = [json.loads(line) for line in run.usage.read_text().splitlines()]
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    assert all(0 <= line["cpu_percent"] <= 100 and line["memory_mib"] > 64 for line in lines) and watch.seconds > 0


def test_a_resumed_training_goes_on_in_the_same_record(run):
    run.usage.write_text('{"seconds": 7.0, "cpu_percent": 50.0, "memory_mib": 10.0}\n{"seconds": 8.0, "cpu')
    with Watch(run, resumed=True):
        pass
    assert [json.loads(line)["seconds"] for line in run.usage.read_text().splitlines()] == [7.0]
    with Watch(run):
        pass
    assert run.usage.read_text() == ""


def test_a_gpu_that_does_not_tell_leaves_the_rest(monkeypatch):
    import pynvml

    def refuse(_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", refuse)
    assert set(usage([object()])) == {"cpu_percent", "memory_mib"}


def test_curves_are_drawn_from_what_a_killed_run_left(run):
    run.metrics.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n{"step": 3, "lo')
    draw_curves(run)
    for name in ("loss.png", "usage.png"):
        assert Image.open(run.folder / name).size == (770, 330)
