"""All engines, of DeepSpeed and plain: the same training, saved, resumed, loaded by diffusers."""

from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from nbs_lib.config import Train
from nbs_lib.files import read_jsonl
from nbs_lib.models import find_base
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.run.run import Run
from nbs_lib.train import trained_weights

pytestmark = pytest.mark.slow

ZERO = {f"ZeRO {stage}": {"zero_stage": stage} for stage in (0, 1, 2, 3)}
ENGINES = ZERO | {
    "offloaded": {"zero_stage": 2, "offload": True},
    "plain": {"deepspeed": False},
    "afresh": {"deepspeed": False, "launcher": "subprocess"},
}
FULL = {
    name: {"method": "full", "learning_rate": 1e-4} | ZERO[name] for name in ("ZeRO 2", "ZeRO 3")
}
WEIGHTS_OF_THE_UNET = 4_373_124


@pytest.fixture(scope="module")
def trained(new_run, train):
    """`trained(name, options, *prepared)`: a run of four steps with a checkpoint, once by name.

    prepared: the run that made another cache than that of the embedded base.
    """
    runs = {}

    def call(name: str, options: dict, *prepared: Run) -> tuple[Run, Train]:
        small = {
            "steps": 4,
            "batch_size": 2,
            "log_every": 1,
            "mixed_precision": "fp32",
            "checkpointing_steps": 2,
            "validation_steps": 0,
        }
        if name not in runs:
            run = new_run(*prepared)
            config = Train(str(run.folder), **small | {"ema_decay": 0.5} | options)
            train(config)
            runs[name] = run, config
        return runs[name]

    return call


@pytest.fixture
def resumed(train, interrupted):
    """`resumed(run, config)`: the same training, interrupted after its checkpoint and resumed."""

    def call(run: Run, config: Train) -> Run:
        other = interrupted(run)
        train(replace(config, run=str(other.folder)))
        assert other.stage_record("train")["resumed_from"] == 2
        return other

    return call


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def numbers(run: Run, name: str) -> list[float]:
    return [line[name] for line in read_jsonl(run.metrics) if name in line]


@pytest.mark.parametrize("engine", ENGINES)
def test_all_engines_train_save_and_resume_alike(trained, resumed, engine):
    first, _ = trained("ZeRO 0", ZERO["ZeRO 0"])
    run, config = trained(engine, ENGINES[engine])
    record = run.stage_record("train")
    assert (
        record["distributed_type"] == ("DEEPSPEED" if config.deepspeed else "MULTI_CPU")
        and record["processes"] == 2
    )
    assert numbers(run, "loss") == pytest.approx(numbers(first, "loss"), rel=1e-5)
    assert numbers(run, "grad_norm") == pytest.approx(numbers(first, "grad_norm"), rel=1e-4)
    learned = load_file(run.adapter / LORA_FILE)
    assert any(value.abs().max() > 0 for key, value in learned.items() if "lora_B" in key), (
        "an empty adapter"
    )
    for key, value in load_file(first.adapter / LORA_FILE).items():
        assert learned[key] == pytest.approx(value, abs=2e-5), key
    checkpoint = run.checkpoints / "step-0000002"
    assert 3 * size(run.adapter) < size(checkpoint) < 4 * WEIGHTS_OF_THE_UNET / 2, (
        "the optimizer's, but never the base"
    )
    find_base("embedded").pipeline().load_lora_weights(run.adapter)
    if engine == "afresh":
        return  # except for its launcher it is the plain one
    again = resumed(run, config)
    assert (again.adapter / LORA_FILE).read_bytes() == (run.adapter / LORA_FILE).read_bytes()
    assert numbers(again, "loss") == numbers(run, "loss")


@pytest.mark.parametrize("engine", FULL)
def test_all_weights_are_trained_with_a_partitioned_optimizer(trained, resumed, engine):
    first, _ = trained("full, ZeRO 2", FULL["ZeRO 2"])
    run, config = trained(f"full, {engine}", FULL[engine])
    assert numbers(run, "loss") == pytest.approx(numbers(first, "loss"), rel=1e-5)
    checkpoint = run.checkpoints / "step-0000002"
    states = sorted(path.stat().st_size for path in checkpoint.glob("process-*.safetensors"))
    # an fp32 copy and AdamW's two states of half of the weights, in each of two processes
    assert states == pytest.approx([3 * 4 * WEIGHTS_OF_THE_UNET / 2] * 2, rel=0.02)
    again = resumed(run, config)
    assert trained_weights(again, config).read_bytes() == trained_weights(run, config).read_bytes()
    StableDiffusionPipeline.from_pretrained(again.model)


def test_stage_3_trains_all_layers_like_stage_0(trained, prepared_tiny):
    everywhere = {
        "target_modules": "all",
        "gradient_checkpointing": True,
        "steps": 2,
        "checkpointing_steps": 0,
        # else a gradient near zero, which the engines round differently, moves a weight by 0.001
        "adam_epsilon": 1e-4,
    }
    runs = [
        trained(f"everywhere, {engine}", ENGINES[engine] | everywhere, prepared_tiny)[0]
        for engine in ("ZeRO 0", "ZeRO 3")
    ]
    first, divided = (load_file(run.adapter / LORA_FILE) for run in runs)
    for (
        key,
        value,
    ) in (
        first.items()
    ):  # the first layers have gradients, too, though what they are given wants none
        assert value.abs().max() > 0 and divided[key] == pytest.approx(value, abs=2e-5), key


def test_gradients_are_clipped_at_max_grad_norm_at_every_stage(trained, prepared_tiny):
    loud = {
        "guidance_scale": 60.0,
        "alpha": 512.0,
        "learning_rate": 1e-5,
        "max_grad_norm": 50.0,
        "steps": 2,
        "checkpointing_steps": 0,
    }
    norms = {}
    for engine in ("plain", "ZeRO 0", "ZeRO 2"):
        run, _ = trained(f"loud, {engine}", ENGINES[engine] | loud, prepared_tiny)
        norms[engine] = numbers(run, "grad_norm")
    assert min(norms["plain"]) > 1, "or nobody would see that they were clipped at 1"
    assert norms["ZeRO 0"] == pytest.approx(norms["plain"], rel=1e-4) == norms["ZeRO 2"]
