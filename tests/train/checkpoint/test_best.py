"""The best weights: chosen by paired held-out losses, delivered, resumed; an early end."""

import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from nbs_lib.config import Train
from nbs_lib.config.validation import ParameterError
from nbs_lib.files import read_jsonl
from nbs_lib.models.lora.metadata import LORA_FILE, load_metadata
from nbs_lib.run.continuation import describe_start
from nbs_lib.run.run import Run
from nbs_lib.train.checkpoint.best import BestWeights
from nbs_lib.train.checkpoint.checkpoint import BEST_FILE
from nbs_lib.train.data.cache_reader import DataError, check_cache

ALONE = SimpleNamespace(is_main_process=True)


class Weight:
    """A training of one weight, whose moving average is 100 more."""

    def __init__(self):
        self.learned = [torch.nn.Parameter(torch.zeros(()))]
        self.parameters = self.learned

    @torch.no_grad()
    def set(self, value: float):
        self.learned[0].fill_(value)

    def apply_ema(self):
        self.set(self.learned[0].item() + 100)

    @contextmanager
    def ema_weights(self):
        self.apply_ema()
        yield
        self.set(self.learned[0].item() - 100)


def best_of(folder: Path, **options) -> BestWeights:
    config = Train(str(folder), **{"validation_steps": 2} | options)
    return BestWeights(config, Run(folder), Weight(), ALONE)


def validate(best: BestWeights, step: int, losses: list[float]):
    """Let the weight be the step, and measure it."""
    best.training.set(step)
    best.update(step, torch.tensor(losses))


def saved(best: BestWeights, step: int) -> float:
    """Return the weight that is saved at the end."""
    assert best.apply(step) + 100 == (weight := best.training.learned[0].item())
    return weight


def test_the_best_weights_are_saved_if_they_are_better_by_more_than_chance(tmp_path):
    best = best_of(tmp_path)
    validate(best, 2, [1.0, 2.0, 3.0])
    # differences 0.3, 0.1, −0.1: mean 0.1, standard error 0.2 / √3 = 0.115
    validate(best, 4, [1.3, 2.1, 2.9])
    assert best.best.step == 2 and best.misses == 1 and saved(best, 4) == 104
    # differences 0.5, 0.3, 0.1: mean 0.3
    validate(best, 6, [1.5, 2.3, 3.1])
    assert best.misses == 2 and saved(best, 6) == 102
    best.finish()
    assert list(tmp_path.iterdir()) == []


def test_the_last_weights_are_saved_without_a_better_validation(tmp_path):
    best = best_of(tmp_path)
    assert saved(best, 0) == 100
    validate(best, 2, [1.0, 2.0])
    validate(best, 4, [0.5, 1.9])
    assert best.best.step == 4 and saved(best, 4) == 104
    # nothing is known of chance from one example
    alone = best_of(tmp_path / "alone")
    validate(alone, 2, [1.0])
    validate(alone, 4, [9.0])
    assert saved(alone, 4) == 104


def test_losses_that_are_not_finite_are_never_the_best(tmp_path):
    best = best_of(tmp_path)
    validate(best, 2, [float("nan"), 1.0])
    assert best.best is None and saved(best, 2) == 102
    validate(best, 4, [1.0, 1.0])
    validate(best, 6, [float("inf"), 0.0])
    assert saved(best, 6) == 104


def test_a_last_step_between_two_validations_is_no_candidate_of_a_longer_training(tmp_path):
    best = best_of(tmp_path)
    validate(best, 2, [1.0, 2.0])
    validate(best, 3, [0.1, 0.2])
    assert best.best.step == 2 and best.misses == 0 and saved(best, 3) == 103


def test_losses_against_a_target_that_moves_choose_nothing(tmp_path):
    best = best_of(tmp_path, objective="distribution")
    validate(best, 2, [1.0, 2.0])
    validate(best, 4, [5.0, 6.0])
    assert best.best is None and saved(best, 4) == 104


def test_a_checkpoint_brings_back_its_own_best_weights(tmp_path):
    best = best_of(tmp_path)
    validate(best, 2, [1.0, 2.0])
    checkpoints = {step: tmp_path / "checkpoints" / f"step-{step:07d}" for step in (2, 3)}
    for folder in checkpoints.values():
        folder.mkdir()
    assert best.link_into(checkpoints[2], 2) == {}, "its own weights are the best"
    assert best.link_into(checkpoints[3], 3) == {BEST_FILE: best.digest}
    inode = (checkpoints[3] / BEST_FILE).stat().st_ino
    assert inode == best.path.stat().st_ino, "they are on the disk once"
    state = best.state()
    # a better one comes, and the process is killed before the next checkpoint
    validate(best, 4, [0.1, 0.2])
    for step in (2, 3):
        again = best_of(tmp_path)
        again.load_state(state)
        again.training.set(step)
        again.begin(step)
        validate(again, 6, [8.0, 9.0])
        assert saved(again, 6) == 102
    best_of(tmp_path).begin(0)
    assert not best.path.exists(), "a training that starts over has no best weights"


@pytest.mark.parametrize(
    "options",
    [
        {"validation_steps": 0},
        {"validation_examples": 0},
        {"objective": "consistency"},
        {"objective": "distribution"},
    ],
    ids=str,
)
def test_an_early_end_needs_losses_that_compare(options):
    Train(**options)
    with pytest.raises(ParameterError, match="early_stopping_patience"):
        Train(early_stopping_patience=2, **options)


def test_an_early_end_needs_held_out_examples(prepared, monkeypatch):
    check_cache(prepared.cache, Train(early_stopping_patience=2))
    from nbs_lib.train.data import cache_reader

    monkeypatch.setattr(cache_reader, "HELD_OUT_SHARE", 17)
    with pytest.raises(DataError, match="has 16 examples, of which none can be held out"):
        check_cache(prepared.cache, Train(early_stopping_patience=2))


def test_another_patience_goes_on_from_the_checkpoint():
    before = {"steps": 9, "early_stopping_patience": 2, "lr_scheduler": "cosine"}
    now = before | {"early_stopping_patience": 0}
    assert describe_start(before, now, 6) == "goes on from step 6"


# the learning rate rises until the weights break: the best ones come first, and each step's rate
# is the same however many steps follow
RISING = {
    "steps": 12,
    "batch_size": 1,
    "log_every": 1,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 40,
    "learning_rate": 0.15,
    "validation_steps": 2,
    "validation_examples": 4,
    "num_validation_images": 0,
    "checkpointing_steps": 5,
    "mixed_precision": "fp32",
}
ENGINES = {
    "plain": {"deepspeed": False, "num_processes": 1},
    "ZeRO 0, mean": {"zero_stage": 0, "ema_decay": 0.9, "learning_rate": 0.5},
    "ZeRO 2, all weights": {"zero_stage": 2, "method": "full", "learning_rate": 0.005},
    "ZeRO 3": {"zero_stage": 3},
}


def rising(run: Run, engine: str, **options) -> Train:
    return Train(str(run.folder), **RISING | ENGINES[engine] | options)


def weights(run: Run) -> dict:
    file = run.adapter / LORA_FILE
    if not file.exists():
        file = run.model / "unet" / "diffusion_pytorch_model.safetensors"
    return load_file(file)


def validations(run: Run) -> list[dict]:
    return [line for line in read_jsonl(run.metrics) if "held_out_loss" in line]


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def finished(new_run, prepared_tiny, train):
    """`finished(engine)`: a training of all its steps; each is trained once."""
    runs: dict[str, Run] = {}

    def call(engine: str) -> Run:
        if engine not in runs:
            runs[engine] = new_run(prepared_tiny)
            train(rising(runs[engine], engine))
        return runs[engine]

    return call


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_weights_are_delivered_also_when_the_training_is_resumed(
    finished, interrupted, train, engine
):
    run = finished(engine)
    record = run.stage_record("train")
    losses = {line["step"]: line["held_out_loss"] for line in validations(run)}
    best = min((step for step in losses if step), key=losses.get)
    assert record["weights_step"] == best < 10 and record["last_step"] == 12, losses
    assert record["held_out_loss"] == [losses[0], losses[best]] and losses[best] < losses[12]
    folder = run.model if record["parameters"]["method"] == "full" else run.adapter
    assert load_metadata(folder)["weights_step"] == best
    assert f"| weights | of step {best} of 12, whose held-out" in (folder / "README.md").read_text()
    assert not (run.checkpoints / BEST_FILE).exists()
    again = interrupted(run)
    train(rising(again, engine))
    assert again.stage_record("train")["resumed_from"] == 10
    assert equal(weights(again), weights(run)) and validations(again) == validations(run)
    assert again.stage_record("train")["weights_source"] == record["weights_source"]


@pytest.mark.slow
def test_the_best_weights_are_those_of_a_training_that_ends_there(
    finished, new_run, prepared_tiny, train
):
    run, shorter = finished("plain"), new_run(prepared_tiny)
    best = run.stage_record("train")["weights_step"]
    train(rising(shorter, "plain", steps=best))
    assert equal(weights(shorter), weights(run))
    assert shorter.stage_record("train")["weights_source"] == f"of step {best}, the last of {best}"


@pytest.mark.slow
def test_a_damaged_best_file_makes_its_checkpoint_damaged(finished, start_training, tmp_path):
    run, again = finished("plain"), Run(tmp_path / "run")
    shutil.copytree(run.folder, again.folder, symlinks=True)
    shutil.rmtree(again.checkpoints / "step-0000012")
    again.update_stage("train", status="interrupted")
    newest = again.checkpoints / "step-0000010"
    content = bytearray((newest / BEST_FILE).read_bytes())
    content[-1] ^= 1
    (newest / BEST_FILE).write_bytes(content)
    kernel = start_training(rising(again, "plain"))
    assert kernel.wait() == 0, kernel.output
    assert f"{newest} is damaged and passed over: ValueError: {BEST_FILE}" in kernel.output
    assert again.stage_record("train")["resumed_from"] == 0
    assert equal(weights(again), weights(run))


@pytest.mark.slow
def test_a_training_ends_early_and_goes_on_if_it_is_asked_to(new_run, prepared_tiny, train):
    engine = "ZeRO 0, mean"
    run = new_run(prepared_tiny)
    train(rising(run, engine, steps=30, early_stopping_patience=2))
    record = run.stage_record("train")
    best = record["weights_step"]
    end = best + 2 * RISING["validation_steps"]
    assert record["status"] == "done" and record["last_step"] == end < 30
    reason = f"not fallen in 2 validations since the lowest one, of step {best}"
    assert reason in record["ended_early"] and reason in record["weights_source"]
    assert (run.checkpoints / f"step-{end:07d}").is_dir(), "like a last step's"
    # what is killed while it saves ends again at once, and in the same weights
    killed = Run(run.folder.with_name("killed"))
    shutil.copytree(run.folder, killed.folder, symlinks=True)
    shutil.rmtree(killed.adapter)
    killed.update_stage("train", status="interrupted")
    train(rising(killed, engine, steps=30, early_stopping_patience=2))
    assert killed.stage_record("train")["resumed_from"] == end
    assert killed.stage_record("train")["ended_early"] == record["ended_early"]
    assert equal(weights(killed), weights(run))
    train(rising(run, engine, steps=end + 2, replace=True))
    again = run.stage_record("train")
    assert again["resumed_from"] == end and again["ended_early"] is None
    assert again["last_step"] == end + 2 and again["weights_step"] == best
