import json
import re

import numpy as np
import pytest
from PIL import Image

from nbs_lib.compare import compare, summary
from nbs_lib.config import Compare
from nbs_lib.config.validation import ParameterError
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow


def config(run: Run, **changed) -> Compare:
    return Compare(
        **{
            "run": str(run.folder),
            "replace": True,
            "prompts": ["A boy is watching TV"],
            "seeds": [0, 4],
            "steps": 2,
        }
        | changed
    )


def test_the_stage_leaves_pictures_numbers_figures_and_the_report(trained):
    compared = compare(
        config(trained, prompts=["A boy is watching TV", "<b>A cat</b>"], captions=10)
    )
    results = json.loads((trained.compare / "results.json").read_text())
    assert results == compared.results
    assert set(results) == {
        *(
            "base",
            "base_origin",
            "base_hash",
            "base_options",
            "objective",
            "whole_model",
            "sampling",
            "w_train",
            "steps",
            "resolution",
            "scheduler",
            "mixed_precision",
            "precision_difference",
            "adapter_scale",
            "seeds",
            "contenders",
            "clip",
            "set",
            "dial",
            "negative",
            "cut_prompts",
            "own",
        ),
        *("guidance_recovered", "measured_on", "features", "scores", "time_ratio", "nfe_ratio"),
        *("pictures", "figures"),
    }
    assert results["measured_on"] == "held-out captions" and results["features"] == "embedded"
    assert {name: row["nfe"] for name, row in results["contenders"].items()} == {
        "unguided": 2,
        "guided": 4,
        "tuned": 2,
    }
    assert (
        results["nfe_ratio"] == 0.5
        and results["scheduler"] == "DDIMScheduler"
        and results["w_train"] == 2.5
    )
    seconds = {name: row["seconds"] for name, row in results["contenders"].items()}
    assert results["time_ratio"] == seconds["tuned"] / seconds["guided"]
    for name, row in results["contenders"].items():
        assert (row["fidelity"] or {"count": 10})["count"] == 10, "of the captions, not of prompts"
        assert (row["fidelity"] is None) == (name == "guided")
        assert row["caption_first"]["count"] == 10
        assert (
            0
            <= row["caption_first"]["low"]
            <= row["caption_first"]["rate"]
            <= row["caption_first"]["high"]
            <= 1
        )
    assert [(picture["prompt"], picture["seed"]) for picture in results["pictures"]] == [
        ("A boy is watching TV", 0),
        ("A boy is watching TV", 4),
        ("<b>A cat</b>", 0),
        ("<b>A cat</b>", 4),
    ]
    assert results["pictures"][3]["files"]["tuned"] == "pictures/p01_s4_tuned.png"
    pictures = [
        np.asarray(Image.open(trained.compare / f))
        for picture in results["pictures"]
        for f in picture["files"].values()
    ]
    assert len({picture.tobytes() for picture in pictures}) == 12 and all(
        picture.shape == (128, 128, 3) for picture in pictures
    )
    assert all((trained.compare / name).is_file() for name in ("grid.png", "rates.png"))
    record = trained.stage_record("compare")
    assert record["status"] == "done" and set(record["outputs"]) == {
        "compare/results.json",
        "report.html",
    }
    assert record["contenders"] == results["contenders"] and trained.changed(config(trained)) == [
        "parameters"
    ]
    assert str(compared.report) in summary(compared) and "guidance recovered" in summary(compared)
    assert [path.name for path in trained.folder.glob(".*")] == []


def test_a_comparison_without_captions_has_no_caption_accuracy(trained):
    compared = compare(config(trained, captions=0, adapter_scale=0.0))
    assert (
        compared.results["guidance_recovered"] is None
        and compared.results["figures"]["rates"] is None
    )
    assert not (trained.compare / "rates.png").exists()
    unguided, tuned = (
        compared.results["contenders"][name]["fidelity"] for name in ("unguided", "tuned")
    )
    # λ = 0 is the base
    assert tuned | {"nearer": None} == unguided and tuned["nearer"]["rate"] == 0
    assert tuned["count"] == 2 and compared.results["measured_on"] == "the prompts shown"
    assert "2 pictures of the prompts shown" in summary(compared)
    assert all(line.split()[1] == "–" for line in summary(compared).splitlines()[1:4])


def test_a_file_of_prompts_takes_the_place_of_the_captions(trained, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# a remark\nA red cat\n\nA blue cat\nA red cat\nA dog\nA bus\n")
    options = {"prompts_file": str(file), "seeds": [0], "captions": 10}
    compared = compare(config(trained, **options))
    results = compared.results
    assert results["measured_on"] == "prompts of a file" and results["guidance_recovered"] is None
    assert results["set"] == {"of": "guided", "pictures": 5} and results["figures"]["rates"] is None
    tuned = results["contenders"]["tuned"]
    assert tuned["caption_first"] is None and tuned["fidelity"]["count"] == 5
    # the seeds of the captions, so that equal prompts are other pictures
    texts = [Image.open(path).text["onepass"] for path in trained.samples.glob("*.png")]
    sampled = {(row["prompt"], row["seed"]) for row in map(json.loads, texts)}
    measured = ["A red cat", "A blue cat", "A red cat", "A dog", "A bus"]
    expected = {(prompt, 10_000 + index) for index, prompt in enumerate(measured)}
    assert sampled == expected | {("A boy is watching TV", 0)}
    page = trained.report.read_text()
    assert "5 pictures of prompts of a file" in page
    assert "5 pictures of prompts of a file" in summary(compared)
    assert trained.changed(config(trained, **options)) == []
    file.write_text("A red cat\nA blue cat\n")
    assert trained.changed(config(trained, **options)) == ["prompts_file"]
    file.unlink()
    before = trained.read()
    with pytest.raises(ParameterError, match="there is no such file"):
        compare(config(trained, **options))
    assert trained.read() == before, "a refused comparison leaves the record as it was"


def test_an_untrained_run_is_refused_before_anything_is_written(run_folder):
    with pytest.raises(FileNotFoundError, match="2_train"):
        compare(config(Run(run_folder)))
    assert not run_folder.exists()


def test_every_feature_together_and_again_from_the_cache(trained, capsys):
    """Every contender, the dial, a grid; then again, from what is there."""
    more = [
        "unguided",
        "guided",
        "selective-50",
        "tuned",
        "hybrid-50",
        "tuned at 0.5",
        f"{trained.folder} at 0.5",
    ]
    options = {
        "contenders": more,
        "dial_at": [1.5, 2.0, 4.0],
        "axes": ["steps: 1 | 2", "w: 1 | 3", "contender: guided | selective-50"],
        "captions": 5,
    }
    long = "a word " * 1000
    results = compare(
        config(trained, prompts=["A boy is watching TV", long], seeds=[0], **options)
    ).results
    assert {name: row["nfe"] for name, row in results["contenders"].items()} == dict(
        zip(more, (2, 4, 3, 2, 3, 2, 2), strict=True)
    )
    fidelity = {name: row["fidelity"] for name, row in results["contenders"].items()}
    assert fidelity["tuned at 0.5"] == fidelity[f"{trained.folder} at 0.5"]
    for row in results["contenders"].values():
        assert row["seconds_low"] <= row["seconds"] <= row["seconds_high"]
        for name in ("clip_score", "fid", "kid"):
            assert row[name]["low"] <= row[name]["high"]
    assert results["set"] == {"of": "the data", "pictures": 5} and results["clip"] == "embedded"
    turns = results["dial"]["turns"]
    # w 2.5 at λ 1 is expected of an adapter without a measured dial
    scales = [row["adapter_scale"] for row in turns]
    assert [row["target"] for row in turns] == [1.5, 2.0]
    assert scales == pytest.approx([1 / 3, 2 / 3])
    # the adapter's dial ends before
    assert results["dial"]["beyond"] == [4.0] and results["dial"]["highest"] == 2.5
    assert results["dial"]["pictures"] == 5
    assert [cut["tokens"] > cut["read"] for cut in results["cut_prompts"]] == [True]
    message, stderr = capsys.readouterr()
    assert (
        f"the text encoder reads {results['cut_prompts'][0]['read']} of the" in message
        and "there already" not in message
    )
    bars = re.findall(r"([^\r\n]*\S) ?: +100%\|[^|]*\| (\d+)/(\d+) \[", message)
    ends = [f"{name} {done} of {total}" for name, done, total in bars]
    # of the contenders the prompts and the captions; of the dial; over the axes
    pictures = 7 * (2 + 5) + (11 + 2 + 2) * 5 + 8
    ends = [
        end
        for i, end in enumerate(ends)
        if end not in ends[:i] and not end.startswith(("guided ", "selective"))
    ]
    counts = {"timing": 3, "compare": pictures, "captions": 7, "scores": 7, "fidelity": 7}
    counts |= {"figures": 8}
    assert ends == [f"{name} {count} of {count}" for name, count in counts.items()]
    assert (
        "\rtuned at 0.5: " in message
        and f"\r…{str(trained.folder)[-16:]} at 0.5: " in message
        and stderr == ""
    )
    assert results["figures"].pop("own") is results["own"] is None, "nothing is fine-tuned"
    for name, file in results["figures"].items():
        with Image.open(trained.compare / file) as image:
            assert min(image.size) > 200, name
    page = trained.report.read_text()
    assert "tuned at 0.5" in page.lower() and "1.5 (λ = 0.333): " in page
    assert page.count("<img src") > 8
    pictures = {path.name: path.read_bytes() for path in (trained.compare / "pictures").iterdir()}
    again = compare(
        config(trained, prompts=["A boy is watching TV", long], seeds=[0], **options)
    ).results
    count = len(list(trained.samples.glob("*.png")))
    message, stderr = capsys.readouterr()
    assert (
        f"{count} of {count} pictures were there already" in message
        and "compare: 100%" in message
        and stderr == ""
    )
    assert {
        path.name: path.read_bytes() for path in (trained.compare / "pictures").iterdir()
    } == pictures
    assert again["dial"] == results["dial"]
    assert {name: row["fidelity"] for name, row in again["contenders"].items()} == fidelity
    compare(config(trained, captions=0))
    assert len(list(trained.samples.glob("*.png"))) == 6, "what is not compared any more is gone"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["w: 1 | 3", "adapter_scale: 0 | 1"], "adapter_scale changes nothing for 'guided'"),
        (["w: 1 | 3", "contender: guided at 3 | tuned"], "w changes nothing for 'guided at 3'"),
    ],
)
def test_an_axis_that_changes_nothing_is_refused_before_sampling(trained, axes, message):
    with pytest.raises(ValueError, match=message):
        compare(config(trained, axes=axes))
    assert not list(trained.samples.glob("*"))


def test_a_run_that_is_being_trained_is_no_contender_yet(trained, tmp_path):
    Run(tmp_path / "other").update(stages={"train": {"status": "running"}})
    with pytest.raises(FileNotFoundError, match="its training has not ended"):
        compare(config(trained, contenders=["unguided", "guided", "tuned", f"{tmp_path}/other"]))


def test_a_page_of_large_pictures_stays_small(trained, monkeypatch):
    from nbs_lib.compare.report import html as report

    compare(config(trained, captions=0))
    full_size = trained.report.stat().st_size
    monkeypatch.setattr(report, "MAX_BYTES", full_size - 1)
    report.write_report(trained)
    assert (
        trained.report.stat().st_size < full_size
        and b"data:image/webp" in trained.report.read_bytes()
    )
    assert (
        "<article" in trained.report.read_text()
        and "would be above" not in trained.report.read_text()
    )
    monkeypatch.setattr(report, "MAX_BYTES", 0)
    report.write_report(trained)
    pictures = trained.report.read_text()
    assert pictures.count("<article") == 1 and "The first 1 of 2: " in pictures


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"contenders": ["unguided", "guided"]}, "allowed is unguided, guided, tuned, and others"),
        (
            {"contenders": ["unguided", "guided", "tuned", "best"]},
            "contender: given 'best'; allowed is unguided",
        ),
        ({"contenders": ["unguided", "guided", "tuned", "tuned"]}, "each of them once"),
        (
            {"contenders": ["unguided", "guided", "tuned", "tuned at 99"]},
            "λ = 99; allowed is -10 to 10",
        ),
        ({"dial_at": [1.0]}, "numbers above 1"),
        ({"seeds": [1, 1]}, "each once"),
        ({"axes": ["steps: 0 | 1", "seed: 1"]}, "0; allowed is 1 to 1000"),
        ({"axes": ["contender: tuned | tunned", "seed: 1"]}, "given 'tunned'; allowed is unguided"),
        ({"axes": ["scheduler: Euler", "seed: 1"]}, "Euler; allowed is one of DDIMScheduler"),
        ({"dial_at": [2.0, 2.0]}, "each once"),
        ({"axes": ["steps: 1"]}, "allowed are two or three"),
        ({"clip": " "}, "auto, embedded, none, a folder or a hub id"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(ParameterError, match=message):
        Compare(**parameters)
