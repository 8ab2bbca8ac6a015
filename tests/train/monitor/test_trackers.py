"""Trackers of real trainings, read back from the files that each of them writes."""

import json
import struct

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nbs_lib.config import Train
from nbs_lib.config.validation import ParameterError
from nbs_lib.files import read_jsonl
from nbs_lib.launch.errors import LaunchError
from nbs_lib.launch.preflight import check_machine
from nbs_lib.run.run import Run
from nbs_lib.train.monitor.tracked_values import flat_values, usage_values

pytestmark = pytest.mark.slow

QUARTERS = ("0-249", "250-499", "500-749", "750-999")
TRACKERS = ["tensorboard", "wandb", "mlflow"]
OPTIONS = {
    "steps": 6,
    "batch_size": 1,
    "log_every": 1,
    "checkpointing_steps": 3,
    "validation_steps": 3,
    "validation_examples": 2,
    "num_validation_images": 1,
}


@pytest.fixture(scope="module")
def tracked(new_run, prepared_tiny, train) -> Run:
    """A training on two processes with three trackers; for reading only."""
    run = new_run(prepared_tiny)
    with pytest.MonkeyPatch.context() as patch:
        # a token would send nothing either, because nobody asked for it
        patch.setenv("WANDB_API_KEY", "0" * 40)
        train(Train(str(run.folder), trackers=TRACKERS, **OPTIONS))
    return run


def tensorboard(run: Run) -> EventAccumulator:
    events = EventAccumulator(str(run.folder / "trackers" / "tensorboard"))
    events.Reload()
    return events


def mlflow_values(run: Run, name: str) -> dict[int, float]:
    """Return the values of a metric in MLflow's files by their step."""
    [path] = (run.folder / "trackers" / "mlflow").glob(f"*/*/metrics/{name}")
    rows = [line.split() for line in path.read_text().splitlines()]
    return {int(step): float(value) for _, value, step in rows}


def wandb_history(run: Run) -> list[dict]:
    """Return the rows of W&B's own files, each a log of records in LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for path in sorted((run.folder / "trackers" / "wandb").glob("wandb/offline-run-*/*.wandb")):
        for content in leveldb_records(path.read_bytes()):
            record = Record.FromString(content)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                names = [item.key or "/".join(item.nested_key) for item in items]
                values = [json.loads(item.value_json) for item in items]
                rows.append(dict(zip(names, values, strict=True)))
    return rows


def leveldb_records(content: bytes) -> list[bytes]:
    """Return the records of a log in blocks of 32 KiB, after W&B's header of 7 bytes."""
    records, parts, position = [], [], 7
    while position + 7 <= len(content):
        rest = 2**15 - position % 2**15
        if rest < 7:
            position += rest
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        # whole, first, middle, last
        if kind in (1, 4):
            records.append(b"".join(parts))
            parts = []
    return records


def logged(run: Run, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in read_jsonl(run.metrics) if name in line}


def test_every_tracker_has_the_numbers_of_the_metrics(tracked):
    for name in ("loss", "held_out_loss", "lr"):
        expected = logged(tracked, name)
        assert len(expected) == (3 if name == "held_out_loss" else 6)
        events = {event.step: event.value for event in tensorboard(tracked).Scalars(name)}
        assert events == pytest.approx(expected)
        assert mlflow_values(tracked, name) == pytest.approx(expected)
        history = [row for row in wandb_history(tracked) if name in row]
        assert {row["_step"]: row[name] for row in history} == pytest.approx(expected)
    bands = {tag for tag in tensorboard(tracked).Tags()["scalars"] if "loss_by_t" in tag}
    assert bands and bands <= {f"loss_by_t/{quarter}" for quarter in QUARTERS}


def test_one_run_of_each_tracker_has_the_pictures_and_the_parameters(tracked):
    assert set(tensorboard(tracked).Tags()["images"]) == {"validation", "target"}
    assert [event.step for event in tensorboard(tracked).Images("validation")] == [0, 3, 6]
    folder = tracked.folder / "trackers"
    # of two processes, the main one alone has logged
    [run] = [path.parent for path in folder.glob("mlflow/*/*/metrics")]
    assert len(list((run / "artifacts" / "validation").iterdir())) == 3
    assert (run / "params" / "steps").read_text() == "6"
    [run] = (folder / "wandb" / "wandb").glob("offline-run-*")
    assert len(list((run / "files" / "media" / "images").glob("validation*.png"))) == 3
    assert json.loads((folder / "ids.json").read_text()).keys() == {"wandb", "mlflow"}


def test_a_resumed_training_continues_the_runs_of_its_trackers(tracked, interrupted, train):
    run = interrupted(tracked)
    before = json.loads((run.folder / "trackers" / "ids.json").read_text())
    train(Train(str(run.folder), trackers=TRACKERS, **OPTIONS))
    assert run.stage_record("train")["resumed_from"] == 3
    assert json.loads((run.folder / "trackers" / "ids.json").read_text()) == before
    steps = [event.step for event in tensorboard(run).Scalars("loss")]
    assert steps == [1, 2, 3, 4, 5, 6], "the steps that are taken again are there once"
    assert mlflow_values(run, "loss") == pytest.approx(logged(run, "loss"))
    folders = list((run.folder / "trackers" / "wandb" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(path.name.endswith(before["wandb"]) for path in folders)


def test_a_tracker_that_fails_ends_no_training(new_run, prepared_tiny, start_training, monkeypatch):
    run = new_run(prepared_tiny)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    options = OPTIONS | {"steps": 2, "validation_steps": 0}
    names = ["mlflow", "tensorboard"]
    training = start_training(Train(str(run.folder), trackers=names, num_processes=1, **options))
    assert training.wait() == 0, training.output
    assert training.output.count("tracker mlflow is off from here: ") == 1
    assert "Traceback" not in training.output
    assert len(tensorboard(run).Scalars("loss")) == len(logged(run, "loss")) == 2


def test_unknown_trackers_and_missing_packages_are_refused(python):
    for names in (["wandb", "wandb"], ["comet"], [""]):
        with pytest.raises(ParameterError, match="a list of tensorboard, wandb, trackio, mlflow"):
            Train(trackers=names)
    check_machine(Train(trackers=["tensorboard"]))
    # a project without the package: the folder of an interpreter that has nothing else
    source = (
        "import sys\n"
        "from nbs_lib.launch import preflight\n"
        "sys.path = [path for path in sys.path if 'site-packages' not in path]\n"
        "preflight._check_extra('wandb')"
    )
    missing = python(source)
    assert f"{LaunchError.__name__}: package wandb is not installed" in missing.stderr
    assert "pip install -e '.[wandb]'" in missing.stderr


def test_numbers_by_hand(tmp_path):
    line = {"step": 5, "loss": 0.5, "loss_by_t": [0.25, None, 0.75, None], "grad_norm": None}
    bands = {"loss_by_t/0-249": 0.25, "loss_by_t/500-749": 0.75}
    assert flat_values(line) == {"step": 5, "loss": 0.5} | bands
    usage = tmp_path / "usage.jsonl"
    assert usage_values(usage) == {}
    processes = [{"rank": 0, "memory_mib": 1024.0}, {"rank": 1, "memory_mib": 512.0}]
    sample = {"seconds": 1, "cpu_percent": 50.0, "processes": processes, "gpus": [{"percent": 9}]}
    rows = [sample | {"cpu_percent": 1.0}, sample, {"seconds": 2, "stage": "validate"}]
    usage.write_text("\n".join(map(json.dumps, rows)) + '\n{"seco')
    values = {"usage/cpu_percent": 50.0, "usage/memory_gib": 1.5, "usage/gpu_0/percent": 9}
    assert usage_values(usage) == values
