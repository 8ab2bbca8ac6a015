"""The largest batch that the memory plan allows, in place of a batch size of 0."""

from dataclasses import replace

import pytest

from nbs_lib.config import Train
from nbs_lib.config.validation import ParameterError
from nbs_lib.run.run import Run
from nbs_lib.train import _resolve, resolve
from nbs_lib.train.memory import batch_size
from nbs_lib.train.memory.batch_size import ROOM_SHARE, largest_batch
from nbs_lib.train.memory.estimate import MemoryPlan
from nbs_lib.train.resolve import resolve_choices


@pytest.fixture
def planned(monkeypatch):
    """`planned(room, examples)`: plans of 100 bytes and 10 for each example of the batch."""

    def call(room: int, examples: int):
        def plan(config, cache, processes):
            activations = {"activations": 10 * config.batch_size}
            return MemoryPlan({"base": 100}, activations, processes, room, shared=0)

        class Ten:
            training = range(examples)

        monkeypatch.setattr(batch_size, "plan_memory", plan)
        monkeypatch.setattr(batch_size, "Examples", lambda folder, config: Ten)

    return call


@pytest.mark.parametrize(
    ("room", "examples", "passes", "expected"),
    [
        (200, 1000, 1, 8),  # 0.9 × 200 − 100 is room for 8
        (174, 1000, 1, 5),
        (1000, 1000, 1, 80),
        (1000, 20, 1, 16),  # no more than there are, in eights
        (1000, 20, 4, 5),
        (50, 1000, 1, 1),  # the training itself is refused, with a suggestion
    ],
)
def test_the_largest_batch_by_hand(planned, room, examples, passes, expected, tmp_path):
    planned(room, examples)
    config = Train(batch_size=0, gradient_accumulation_steps=passes)
    assert largest_batch(config, tmp_path, processes=1) == expected


def test_it_is_said_with_the_learning_rate_and_kept_for_a_resumed_training(
    planned, tmp_path, capsys
):
    planned(room=200, examples=1000)
    run = Run(tmp_path / "run")
    options = {"num_processes": 1, "mixed_precision": "fp32", "learning_rate": 0.003}
    config = Train(str(run.folder), batch_size=0, **options)
    assert _resolve(config, run) == replace(config, batch_size=8)
    assert "batch_size: 8, the largest" in (said := capsys.readouterr().out)
    assert "learning_rate stays 0.003" in said
    run.folder.mkdir()
    with pytest.raises(KeyboardInterrupt), run.stage(config):
        run.update_stage("train", resolved={"batch_size": 8})
        raise KeyboardInterrupt
    resolve._largest_batch.cache_clear()
    planned(room=1000, examples=1000)
    assert resolve_choices(config, run.cache).batch_size == 8
    assert resolve_choices(replace(config, steps=900), run.cache).batch_size == 8
    # another training takes what is free now
    assert resolve_choices(replace(config, rank=4), run.cache).batch_size == 80


@pytest.mark.slow
def test_a_real_plan_fits_and_a_larger_batch_would_not(prepared, monkeypatch):
    config = Train(batch_size=0, num_processes=1, mixed_precision="fp32", validation_steps=0)
    seven = batch_size.plan_memory(replace(config, batch_size=7), prepared.cache, 1)
    room = int(seven.needed / ROOM_SHARE) + 1
    original = batch_size.plan_memory
    monkeypatch.setattr(
        batch_size, "plan_memory", lambda *arguments: replace(original(*arguments), room=room)
    )
    assert largest_batch(config, prepared.cache, 1) == 7


def test_several_hosts_need_a_number():
    with pytest.raises(ParameterError, match="batch_size: given 0; allowed is 1 or more"):
        Train(batch_size=0, num_nodes=2, master_port=2000)
