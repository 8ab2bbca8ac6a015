import json

import pytest
import torch
from safetensors.torch import load_file

from nbs_lib.config import Train
from nbs_lib.files import value_hash
from nbs_lib.train.checkpoint import plain_values as plain
from nbs_lib.train.checkpoint.checkpoint import (
    NOTE,
    SHARED,
    CheckpointError,
    candidates,
    refuse_others,
    resume,
    save_checkpoint,
)

OLD, NEW = {"parameters": "a"}, {"parameters": "b"}


class OneProcess:
    """What checkpoints ask of an Accelerator, on one process."""

    is_main_process, process_index = True, 0

    def wait_for_everyone(self):
        pass


class Weight:
    """A training that is one number."""

    def __init__(self, value: float):
        self.value = torch.tensor(value)

    def shared(self):
        return {"value": self.value}

    def own(self):
        return {}

    def restore(self, shared, own):
        self.value = shared["value"] + 0 * self.value


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def save(folder, step: int, inputs=NEW, config=None):
    save_checkpoint(OneProcess(), Weight(float(step)), folder, step, inputs, config or Train())


def latest(folder, inputs, say=lambda said: None):
    """The checkpoint that a training of these inputs goes on from."""
    return next(iter(candidates(folder, inputs, Train(), say)), None)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(folder):
    for step in (2, 4, 10, 12):
        save(folder, step)
    assert names(folder) == ["step-0000010", "step-0000012"] and latest(folder, NEW).step == 12


def test_a_new_training_keeps_its_own_though_older_ones_have_more_steps(folder):
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


@pytest.mark.parametrize("note", HOSTILE, ids=range(len(HOSTILE)))
def test_one_with_a_damaged_note_is_passed_over_and_the_one_before_it_is_used(folder, note):
    for step in (2, 4):
        save(folder, step)
    (folder / "step-0000004" / NOTE).write_text(note, errors="surrogatepass")
    said = []
    assert latest(folder, NEW, said.append).step == 2 and "step-0000004 is passed over" in said[0]


@pytest.mark.parametrize(
    "changed", [{"step": 9}, {"inputs": OLD}, {"parameters": {}}, {"files": {}}], ids=str
)
def test_a_note_that_is_not_as_it_was_written_is_a_damaged_one(folder, changed):
    for step in (2, 4):
        save(folder, step)
    path = folder / "step-0000004" / NOTE
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert latest(folder, NEW).step == 2 and latest(folder, OLD) is None


@pytest.mark.parametrize("step", [9, "4", -1, None, [4]], ids=str)
def test_a_note_that_does_not_fit_its_folder_is_a_damaged_one(folder, step):
    save(folder, 4)
    path = folder / "step-0000004" / NOTE
    note = json.loads(path.read_text()) | {"step": step}
    del note["hash"]
    path.write_text(json.dumps(note | {"hash": value_hash(note)}))
    assert latest(folder, NEW) is None


def test_one_with_a_file_that_is_cut_off_missing_or_a_link_is_passed_over_with_a_word(
    folder, tmp_path
):
    for step in (2, 4):
        save(folder, step)
    path, said = folder / "step-0000004" / SHARED, []
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert latest(folder, NEW, said.append).step == 2
    assert "step-0000004" in said[0] and "cut off" in said[0]
    path.unlink()
    assert latest(folder, NEW).step == 2
    (tmp_path / "elsewhere").write_bytes(content)
    path.symlink_to(tmp_path / "elsewhere")
    assert latest(folder, NEW).step == 2


def test_one_with_a_flipped_byte_is_passed_over_wherever_it_is(folder, capsys):
    for step in (2, 4):
        save(folder, step)
    path = folder / "step-0000004" / SHARED
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        training = Weight(0.0)
        assert resume(OneProcess(), training, folder, NEW, Train()) == 2 and training.value == 2
    assert "step-0000004 is damaged and passed over" in capsys.readouterr().out
    path.write_bytes(content)
    assert resume(OneProcess(), training, folder, NEW, Train()) == 4 and training.value == 4


def test_one_that_cannot_be_put_back_is_passed_over_and_without_another_one_nothing_goes_on(folder):
    class Other(Weight):
        def restore(self, shared, own):
            self.value = shared["value"]
            if self.value == 4:
                raise RuntimeError("size mismatch")

    for step in (2, 4):
        save(folder, step)
    training = Other(0.0)
    assert resume(OneProcess(), training, folder, NEW, Train()) == 2 and training.value == 2
    for path in (folder / "step-0000002").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=f"remove it to start anew|{folder}"):
        resume(OneProcess(), training, folder, NEW, Train())
    assert resume(OneProcess(), training, folder / "none", NEW, Train()) == 0


def test_going_on_with_other_parameters_is_refused_and_says_which(folder):
    save(folder, 2, OLD, Train("a", learning_rate=1e-3, num_processes=2))
    refuse_others(folder, OLD, Train("a", learning_rate=1e-3, num_processes=2))
    with pytest.raises(CheckpointError) as refused:
        refuse_others(
            folder,
            NEW | {"prepare": "x"},
            Train("b", learning_rate=2e-3, num_processes=1, launcher="subprocess"),
        )
    said = str(refused.value)
    assert (
        "lr was 0.001 and is 0.002; processes was 2 and is 1; its prepare changed; start it as it was"
        in said
    )
    assert f"or remove {folder} to start anew" in said
    refuse_others(folder / "none", NEW, Train())


def test_a_part_that_a_killed_process_left_is_no_checkpoint(folder):
    (folder / ".step-0000002.part" / "state").mkdir(parents=True)
    assert latest(folder, NEW) is None
    save(folder, 2)
    assert names(folder) == ["step-0000002"]


def test_plain_values_come_back_as_they_were_and_stock_safetensors_reads_the_file(tmp_path):
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
    for one, other in zip([*again["tensors"], again["view"], again["part"], again["empty"]],
                          [*value["tensors"], wide.T, wide[1], value["empty"]], strict=True):  # fmt: skip
        assert one.dtype == other.dtype and torch.equal(one, other)
    stock = load_file(path).values()
    assert sorted(tensor.numel() for tensor in stock) == sorted([1] * len(plain.DTYPES) + [6, 3, 0])


def test_what_is_not_plain_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="Train is no plain value"):
        plain.write(tmp_path / "value.safetensors", {"config": Train()})
