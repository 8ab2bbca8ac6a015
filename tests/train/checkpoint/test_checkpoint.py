import json

import pytest
import torch
from safetensors.torch import load_file

from nbs_lib.config import Train
from nbs_lib.files import value_hash
from nbs_lib.train.checkpoint import plain_values as plain
from nbs_lib.train.checkpoint.checkpoint import (
    MANIFEST_FILE,
    SHARED_FILE,
    CheckpointError,
    save_checkpoint,
)
from nbs_lib.train.checkpoint.resume import candidates, refuse_others, resume

OLD, NEW = {"parameters": "a"}, {"parameters": "b"}


class OneProcess:
    """The part of an Accelerator that checkpoints use, on one process."""

    is_main_process, process_index = True, 0

    def wait_for_everyone(self):
        pass


class Weight:
    """A training that is one number."""

    def __init__(self, value: float):
        self.value = torch.tensor(value)

    def shared_state(self):
        return {"value": self.value}

    def process_state(self):
        return {}

    def link_files(self, checkpoint, step):
        return {}

    def restore(self, shared_state, process_state):
        self.value = shared_state["value"] + 0 * self.value


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def save(folder, step: int, inputs=NEW, config=None):
    save_checkpoint(OneProcess(), Weight(float(step)), folder, step, inputs, config or Train())


def latest(folder, inputs, report=lambda messages: None):
    """The checkpoint that a training of these inputs goes on from."""
    return next(iter(candidates(folder, inputs, Train(), report)), None)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_remain(folder):
    for step in (2, 4, 10, 12):
        save(folder, step)
    assert names(folder) == ["step-0000010", "step-0000012"] and latest(folder, NEW).step == 12


def test_a_new_training_removes_older_ones_with_more_steps(folder):
    for step in (200, 300):
        save(folder, step, OLD)
    assert latest(folder, NEW) is None and latest(folder, OLD).step == 300
    save(folder, 100)
    assert latest(folder, NEW).step == 100 and names(folder) == ["step-0000100"]


HOSTILE = [
    "",
    "{",
    "[]",
    "{}",
    '{"step": 9, "inputs"',
    "[" * 100_000,
    '{"step": 1e999}',
    "\ud800",
    " " * (2 << 20),
]


@pytest.mark.parametrize("manifest", HOSTILE, ids=range(len(HOSTILE)))
def test_a_damaged_manifest_is_skipped(folder, manifest):
    for step in (2, 4):
        save(folder, step)
    (folder / "step-0000004" / MANIFEST_FILE).write_text(manifest, errors="surrogatepass")
    messages = []
    assert (
        latest(folder, NEW, messages.append).step == 2
        and "step-0000004 is passed over" in messages[0]
    )


@pytest.mark.parametrize(
    "changed", [{"step": 9}, {"inputs": OLD}, {"parameters": {}}, {"files": {}}], ids=str
)
def test_a_changed_manifest_is_damaged(folder, changed):
    for step in (2, 4):
        save(folder, step)
    path = folder / "step-0000004" / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert latest(folder, NEW).step == 2 and latest(folder, OLD) is None


@pytest.mark.parametrize("step", [9, "4", -1, None, [4]], ids=str)
def test_a_manifest_of_another_step_is_damaged(folder, step):
    save(folder, 4)
    path = folder / "step-0000004" / MANIFEST_FILE
    manifest = json.loads(path.read_text()) | {"step": step}
    del manifest["hash"]
    path.write_text(json.dumps(manifest | {"hash": value_hash(manifest)}))
    assert latest(folder, NEW) is None


def test_a_file_that_is_cut_off_missing_or_a_link_is_reported(folder, tmp_path):
    for step in (2, 4):
        save(folder, step)
    path, messages = folder / "step-0000004" / SHARED_FILE, []
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert latest(folder, NEW, messages.append).step == 2
    assert "step-0000004" in messages[0] and "cut off" in messages[0]
    path.unlink()
    assert latest(folder, NEW).step == 2
    (tmp_path / "elsewhere").write_bytes(content)
    path.symlink_to(tmp_path / "elsewhere")
    assert latest(folder, NEW).step == 2


def test_any_flipped_byte_is_found(folder, capsys):
    for step in (2, 4):
        save(folder, step)
    path = folder / "step-0000004" / SHARED_FILE
    content = path.read_bytes()
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        training = Weight(0.0)
        assert resume(OneProcess(), training, folder, NEW, Train()) == 2 and training.value == 2
    assert "step-0000004 is damaged and passed over" in capsys.readouterr().out
    path.write_bytes(content)
    assert resume(OneProcess(), training, folder, NEW, Train()) == 4 and training.value == 4


def test_a_checkpoint_that_cannot_be_restored_is_skipped_or_refused(folder):
    class Other(Weight):
        def restore(self, shared_state, process_state):
            self.value = shared_state["value"]
            if self.value == 4:
                raise RuntimeError("size mismatch")

    for step in (2, 4):
        save(folder, step)
    training = Other(0.0)
    assert resume(OneProcess(), training, folder, NEW, Train()) == 2 and training.value == 2
    for path in (folder / "step-0000002").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match="remove it to start again"):
        resume(OneProcess(), training, folder, NEW, Train())
    assert resume(OneProcess(), training, folder / "none", NEW, Train()) == 0


def test_other_parameters_are_refused_by_name(folder):
    save(folder, 2, OLD, Train("a", learning_rate=1e-3, num_processes=2))
    refuse_others(folder, OLD, Train("a", learning_rate=1e-3, num_processes=2))
    with pytest.raises(CheckpointError) as refused:
        refuse_others(
            folder,
            NEW | {"prepare": "x"},
            Train("b", learning_rate=2e-3, num_processes=1, launcher="subprocess"),
        )
    message = str(refused.value)
    for fact in (
        "learning_rate was 0.001 and is 0.002",
        "num_processes was 2 and is 1",
        "its prepare changed",
        f"remove {folder}",
    ):
        assert fact in message
    refuse_others(folder / "none", NEW, Train())


def test_a_part_of_a_killed_process_is_no_checkpoint(folder):
    (folder / ".step-0000002.part" / "state").mkdir(parents=True)
    assert latest(folder, NEW) is None
    save(folder, 2)
    assert names(folder) == ["step-0000002"]


def test_plain_values_round_trip_and_stock_safetensors_reads_them(tmp_path):
    path, wide = tmp_path / "value.safetensors", torch.arange(6, dtype=torch.float64).reshape(2, 3)
    value = {
        0: [1, 2.5, float("inf"), None, True, "ü"],
        "betas": (0.9, (0.1 + 0.2,)),
        "empty": torch.zeros(0, 3),
    }
    value |= {
        "tensors": [torch.ones((), dtype=kind) for kind in plain.DTYPES],
        "view": wide.T,
        "part": wide[1],
    }
    again = plain.read(path, plain.write(path, value))
    assert again["betas"] == value["betas"] and again[0] == value[0] and list(again) == list(value)
    before = [*value["tensors"], wide.T, wide[1], value["empty"]]
    after = [*again["tensors"], again["view"], again["part"], again["empty"]]
    for one, other in zip(after, before, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    stock = load_file(path).values()
    assert sorted(tensor.numel() for tensor in stock) == sorted([1] * len(plain.DTYPES) + [6, 3, 0])


def test_other_values_are_not_written(tmp_path):
    with pytest.raises(TypeError, match="Train is no plain value"):
        plain.write(tmp_path / "value.safetensors", {"config": Train()})
