import pytest

from nbs_lib.config import Train
from nbs_lib.run import Run
from nbs_lib.train.checkpoint import NOTE, CheckpointError, latest, refuse_others, save_checkpoint

OLD, NEW = {"parameters": "a"}, {"parameters": "b"}


class OneProcess:
    """What save_checkpoint asks of an Accelerator, on one process: the engine's own files are its business."""

    is_main_process = True

    def wait_for_everyone(self):
        pass

    def save_state(self, folder: str, exclude_frozen_parameters: bool):
        assert exclude_frozen_parameters, "the frozen base is never written"
        path = Run(folder).folder
        path.mkdir(parents=True)
        (path / "state").write_text("of the engine")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(folder):
    for step in (2, 4, 10, 12):
        save_checkpoint(OneProcess(), folder, step, NEW, Train())
    assert names(folder) == ["step-0000010", "step-0000012"] and latest(folder, NEW).step == 12


def test_a_new_training_keeps_its_own_though_older_ones_have_more_steps(folder):
    for step in (200, 300):
        save_checkpoint(OneProcess(), folder, step, OLD, Train())
    assert latest(folder, NEW) is None and latest(folder, OLD).step == 300
    save_checkpoint(OneProcess(), folder, 100, NEW, Train())
    assert latest(folder, NEW).step == 100 and names(folder) == ["step-0000100"]


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"step": 9, "inputs"'])
def test_a_damaged_one_is_passed_over_and_the_one_before_it_is_used(folder, note):
    for step in (2, 4):
        save_checkpoint(OneProcess(), folder, step, NEW, Train())
    (folder / "step-0000004" / NOTE).write_text(note)
    assert latest(folder, NEW).step == 2


def test_one_with_a_file_that_is_cut_off_is_passed_over_with_a_word(folder):
    for step in (2, 4):
        save_checkpoint(OneProcess(), folder, step, NEW, Train())
    (folder / "step-0000004" / "state").write_text("of the")
    said = []
    assert latest(folder, NEW, said.append).step == 2
    assert said == [f"{folder / 'step-0000004'} is torn and passed over"]


def test_going_on_with_other_parameters_is_refused_and_says_which(folder):
    save_checkpoint(OneProcess(), folder, 2, OLD, Train("a", lr=1e-3, processes=2))
    refuse_others(folder, OLD, Train("a", lr=1e-3, processes=2))
    with pytest.raises(CheckpointError) as refused:
        refuse_others(folder, NEW | {"prepare": "x"}, Train("b", lr=2e-3, processes=1, launcher="subprocess"))
    said = str(refused.value)
    assert "lr was 0.001 and is 0.002; processes was 2 and is 1; its prepare changed; start it as it was" in said
    assert f"or remove {folder} to start anew" in said
    refuse_others(folder / "none", NEW, Train())


def test_a_part_that_a_killed_process_left_is_no_checkpoint(folder):
    (folder / ".step-0000002.part" / "state").mkdir(parents=True)
    assert latest(folder, NEW) is None
    save_checkpoint(OneProcess(), folder, 2, NEW, Train())
    assert names(folder) == ["step-0000002"]
