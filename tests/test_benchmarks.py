"""The benchmarks' page: benchmarks/README.md shows exactly the results in benchmarks/results."""

import importlib.util
import json

import pytest
import torch

from nbs_lib.files import ROOT

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
MACHINE = {"cpu": "A processor", "cores": 2, "memory_gib": 23.5, "gpus": []}
MADE = {"machine": MACHINE, "versions": {"torch": "2.13.0"}, "date": "2026-01-02"}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Return the module of the page, which writes to tmp_path."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("page", ROOT / "benchmarks" / "page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def test_the_committed_page_is_that_of_the_committed_results(page, tmp_path):
    assert RESULTS, "the README's numbers come from here"
    for path in RESULTS:
        page.save(path.stem, json.loads(path.read_text()))
    assert (tmp_path / "README.md").read_text() == (ROOT / "benchmarks" / "README.md").read_text()


def test_training_s_speed_is_shown_with_its_ratios(page, tmp_path):
    seconds = {"reference": 0.5, "live, fp32": 0.25}
    told = {
        "batch": 8,
        "processes": 2,
        "seconds_a_step": seconds,
        "examples_per_s": {name: 16 / each for name, each in seconds.items()},
        "times_the_reference": {name: 0.5 / each for name, each in seconds.items()},
        "cached_over_floor": {"fp32": 1.05},
    }
    page.save("train", MADE | told)
    text = (tmp_path / "README.md").read_text()
    assert "| live, fp32 | 0.250 | 64.0 | 2.00 |" in text and "1.05 in fp32" in text
    assert (
        "A processor, 2 cores, 23.5 GiB, no GPU; torch 2.13.0; 2026-01-02" in text
        and "bench-train" in text
    )


def test_operations_are_counted_beside_those_of_earlier_commits(page, tmp_path):
    now = {"operations": 3000, "dtype_copies": 13, "gib": 80.0}
    before = {"operations": 6000, "dtype_copies": 2000, "gib": 160.4}
    compiled = {"graphs": 3, "operations": 70, "graph_breaks": 0, "recompiles": 1}
    result = {
        "batch": 8,
        "before": {"abc1234": {"live": before, "cached": before}},
        "eager": {"live": now, "cached": now},
        "compiled": {"live": compiled},
    }
    page.save("operations", MADE | result)
    text = (tmp_path / "README.md").read_text()
    assert "| live, at abc1234 | 6,000 | 2,000 | 160 |\n| live, now | 3,000 | 13 | 80 |" in text
    assert "a live step is 3 graphs and 70 operations" in text and "1 recompilations" in text


def test_operations_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    operations = importlib.import_module("operations")
    x = torch.ones(2, 4)
    with operations.OperationCounter() as counter:
        flat = x.view(8)[:4].t()
        total = (flat + 1).sum()
        half = x.to(torch.bfloat16)
        x.clone()
        torch.empty(5)
    assert (counter.operations, counter.dtype_copies) == (4, 1), "views launch nothing"
    sums = 4 * (4 + 4) + 4 * (4 + 1)
    copies = (32 + 16) + (32 + 32)
    assert counter.bytes == sums + copies
    assert float(total) == 8 and half.dtype == torch.bfloat16


def test_steps_are_shown_with_the_engine_s_share_and_what_compiling_gains(page, tmp_path):
    sides = {
        "plain": {"seconds": 0.5, "of_plain": [1.0, 1.0, 1.0], "compile_seconds": 0.0},
        "ZeRO 0": {"seconds": 0.51, "of_plain": [1.05, 1.02, 0.99], "compile_seconds": 0.0},
        "ZeRO 0, compiled whole": {"seconds": 0.41, "of_plain": [0.8], "compile_seconds": 90.0},
    }
    result = {
        "batch": 32,
        "mixed_precision": "fp32",
        "training": sides,
        "sampling": {"eager": 0.3, "compiled": 0.4, "until_ready": 30.2},
        "before": {"commit": "abc1234", "live": {"times": 1.2}, "cached": {"times": 1.1}},
    }
    page.save("steps", MADE | result)
    text = (tmp_path / "README.md").read_text()
    assert "| plain | 0.500 | 1.00 [1.00, 1.00] | – |" in text
    assert "| ZeRO 0 | 0.510 | 1.02 [0.99, 1.05] | – |" in text
    # a tenth of a second a step
    assert "whole: 1.24 times as fast as ZeRO 0; its 90 s pay after 900 steps." in text
    assert "0.300 s a guided picture, 0.400 s compiled; it never pays, after 30 s." in text
    assert "Times as fast as abc1234: live 1.20, cached 1.10." in text


def test_ranks_are_a_row_for_each_preset_and_name_an_older_base(page, tmp_path):
    cell = {"value": 0.9, "low": 0.8, "high": 1.0, "bytes": 2**20, "loss": 0.03}
    recovered = {"attention": {"2": cell, "4": cell | {"value": 0.95, "low": None}}}
    told = {
        "steps": 250,
        "captions": 150,
        "rates": {"unguided": 0.7, "guided": 0.95},
        "recovered": recovered,
    }
    page.save("ranks", MADE | told)
    text = (tmp_path / "README.md").read_text()
    assert "| layers | rank 2 | rank 4 |" in text
    assert (
        "| attention | 90 % [80, 100]<br>0.0300, 1.0 MiB | 95 %<br>0.0300, 1.0 MiB |" in text
        and "unguided 70 %, guided 95 %" in text
    )
    # what was measured before the base was trained again says so, by the dates
    assert "; 2026-01-02, with the base before 20" in text
    page.save("ranks", MADE | told | {"date": "9999-01-02"})
    assert "; 9999-01-02.\n" in (tmp_path / "README.md").read_text()


def test_machines_soak_and_gpus_are_told_in_words_and_tables(page, tmp_path):
    stage = {"seconds": 0.5, "peak_mib": 700.0}
    machines = {
        "scaling": {"one": 10.0, "two": 18.0, "efficiency": 0.9},
        "stages": {
            "embedded": {"ZeRO 0": stage},
            "ten times": {"ZeRO 0": stage | {"seconds": 2.0}},
        },
        "checkpoints": {"mib": 3.0, "seconds": 0.6, "share": 0.01, "watch_share": 0.002},
    }
    page.save("machines", MADE | machines)
    true_size = {"seconds": [30.0, 31.0, 40.0], "measured_mib": 5000.0, "planned_mib": 4800.0}
    page.save("true-size", MADE | true_size | {"reference_planned_mib": 22000.0, "share": 0.23})
    rates = {
        "64": {
            "prepare": 500.0,
            "bare": 600.0,
            "share": 0.83,
            "bare_kept": 900.0,
            "share_of_kept": 0.56,
        }
    }
    again = {
        "count": 20000,
        "first": 40.0,
        "second": 0.5,
        "times": 80.0,
        "changed": 3.0,
        "changed_encoded": 1,
    }
    memory = {"above_mib": {"10": 100.0, "100": 105.0}, "time_ratio": 9.5}
    scale = {"10": {"seconds": 5.0, "mib": 900.0}, "100": {"seconds": 50.0, "mib": 910.0}}
    prepared = {"rates": rates, "again": again, "memory": memory, "reading": 300_000.0}
    page.save("prepare", MADE | prepared | {"scale": scale})
    rate, score = (
        {"rate": 0.9, "low": 0.85, "high": 0.95},
        {"value": 72.5, "low": 70.0, "high": 75.0},
    )
    side = {"caption_first": rate, "clip_score": score, "nfe": 38, "seconds": 0.5}
    frontier = {
        "seconds": 400.0,
        "w_train": 4.0,
        "contenders": {"selective-50": side},
        "published": {"selective-50": 0.203},
    }
    frontier |= {
        "saved": {"selective-50": {"time": 0.21}},
        "dial": {"turns": [{"target": 2.0, "w": 1.8}]},
    }
    headless = {"runs": 50, "failed": 0, "hung": 1, "seconds": 15.0}
    page.save(
        "lab",
        MADE
        | {"headless": headless, "overhead": {"guided": {"over": 0.021}}, "frontier": frontier},
    )
    page.save(
        "soak",
        MADE
        | {"steps": 9, "kills": 4, "same_adapter": False, "left_over": [], "memory_growth": 0.012},
    )
    sides = {
        "reference, fp32": {"examples_per_s": 2.0, "peak_mib": 40960.0, "share_of_matmul": 0.1},
        "cached, ZeRO 0": {"examples_per_s": 9.0, "peak_mib": 10240.0, "share_of_matmul": 0.42},
        "live, ZeRO 3": {"failed": "took more than 120 s"},
    }
    profile = {"launches_a_step": 7000.4, "copies": 0.281, "gaps": 0.33, "largest": {"gemm": 0.4}}
    sides["cached, ZeRO 0"]["profile"] = profile
    sampling = {
        "guided, bf16": {"pictures_per_s": 1.5, "seconds_until_ready": 4.2, "difference": 0.0042}
    }
    memory = {"planned_mib": 3000.0, "measured_mib": 3100.4}
    page.save(
        "gpu",
        MADE
        | {
            "sides": sides,
            "sampling": sampling,
            "skipped": ["live, ZeRO 0, compiled"],
            "memory": memory,
        },
    )
    text = (tmp_path / "README.md").read_text()
    assert (
        "| ten times | 2.000 s, 700 MiB |" in text
        and "do 0.90 of twice" in text
        and "1.0 %\nof the time" in text
    )
    assert (
        "About 31 s a step" in text and "22000 MiB by the same plan, so ours is 0.23 of it" in text
    )
    assert "10 examples in 5 s and 900 MiB, 100 in 50 s and 910 MiB" in text
    assert "0.83 of a bare loop" in text and "80 times faster" in text and "105 MiB at 100" in text
    assert (
        "50 headless comparisons in a row: 0 failed, 1 hung; 15.0 s each" in text
        and "guided +2.1 %" in text
    )
    assert (
        "| selective-50 | 90 % [85, 95] | 72.5 [70.0, 75.0] | 38 | 0.500 | 21 % | 20.3 % |" in text
    )
    assert "the nearest one: 2: 1.80." in text
    assert "NOT the same file" in text and "killed 4 times" in text and "grew by 1.2 %" in text
    assert (
        "| cached, ZeRO 0 | 9.00 | 4.50 | 10.0 GiB | 42 % |" in text
        and "| live, ZeRO 3 | took more than 120 s |" in text
    )
    assert "cached, ZeRO 0: 7000 launches a step, 28 % of the kernels' time copies, 33 %" in text
    assert "| guided, bf16 | 1.50 | 4 | 0.42 % |" in text
    assert "Skipped: live, ZeRO 0, compiled." in text and "3000 MiB planned, 3100 measured" in text


def test_own_images_are_one_paragraph(page, tmp_path):
    result = {
        "pictures": 20,
        "sampled": 80,
        "steps": 400,
        "seconds": 300.0,
        "shares": {"base": 0.05, "tuned": 0.9},
        "psnr_db": 27.25,
        "worst_psnr_db": 22.0,
    }
    page.save("own-images", MADE | result)
    text = (tmp_path / "README.md").read_text()
    assert "base 5 %, tuned 90 %" in text and "bench-own-images" in text
    assert "20 pictures, 400 steps, 5 minutes" in text and "worst with 22.0 dB" in text
