"""The stage on real DeepSpeed processes: every objective and method."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from nbs_lib.config import Prepare, Train
from nbs_lib.files import read_jsonl
from nbs_lib.models import find_base
from nbs_lib.models.lora.metadata import LORA_FILE, load_metadata
from nbs_lib.prepare import prepare
from nbs_lib.run.run import Run
from nbs_lib.train.data.cache_reader import DataError, check_cache

pytestmark = pytest.mark.slow


def trained(new_run, train, *prepared: Run, **changed) -> Run:
    """Return a run of four steps on the same cache. prepared: the run that made another cache."""
    run = new_run(*prepared)
    options = {
        "steps": 4,
        "batch_size": 2,
        "log_every": 1,
        "mixed_precision": "fp32",
        "validation_examples": 4,
        "validation_steps": 0,
    }
    train(Train(str(run.folder), **options | changed))
    return run


def losses(run: Run, name: str = "loss") -> list[float]:
    return [line[name] for line in read_jsonl(run.metrics) if name in line]


def test_every_process_count_and_accumulation_learns_the_same(new_run, prepared_tiny, train):
    """Four examples a step, divided among processes and passes, are the same training."""
    ways = {
        "two": {"zero_stage": 0},
        "one": {"zero_stage": 0, "num_processes": 1, "batch_size": 4},
        "one in two passes": {
            "zero_stage": 0,
            "num_processes": 1,
            "gradient_accumulation_steps": 2,
        },
        "two in two passes": {"zero_stage": 2, "batch_size": 1, "gradient_accumulation_steps": 2},
    }
    runs = {
        name: trained(new_run, train, prepared_tiny, **options) for name, options in ways.items()
    }
    for name, run in runs.items():
        record = run.stage_record("train")
        assert record["distributed_type"] == "DEEPSPEED" and record["processes"] == (
            1 if "one" in name else 2
        )
        assert losses(run) == pytest.approx(losses(runs["two"]), rel=1e-5), name
        assert losses(run, "grad_norm") == pytest.approx(
            losses(runs["two"], "grad_norm"), rel=1e-4
        ), name
        learned = load_file(run.adapter / LORA_FILE)
        assert any(
            value.abs().max() > 0
            for key, value in learned.items()
            if ".up." in key or "lora_B" in key
        ), "an empty adapter"
        for key, value in load_file(runs["two"].adapter / LORA_FILE).items():
            assert learned[key] == pytest.approx(value, abs=2e-5), (name, key)


@pytest.mark.parametrize(
    "options",
    [
        {"teacher": "cached", "guidance_scale_max": 6.0},
        {
            "objective": "finetune",
            "noise_offset": 0.1,
            "method": "dora",
            "target_modules": "feedforward",
            "zero_stage": 2,
        },
        {
            "objective": "consistency",
            "guidance_scale": 1.0,
            "guidance_scale_max": 4.0,
            "method": "rslora",
            "ema_decay": 0.5,
        },
        {
            "objective": "distribution",
            "few_steps": [2, 1],
            "gradient_checkpointing": True,
            "zero_stage": 1,
            "ema_decay": 0.5,
        },
        {"optimizer": "prodigy", "trackers": ["tensorboard"]},
        {
            "mixed_precision": "bf16",
            "gradient_checkpointing": True,
            "lora_dropout": 0.1,
            "target_modules": "all",
        },
    ],
    ids=["cached", "finetune", "consistency", "distribution", "prodigy", "low"],
)
def test_every_objective_and_method_saves_an_adapter_for_a_stock_pipeline(new_run, train, options):
    run = trained(new_run, train, validation_steps=2, **options)
    assert len(losses(run)) == 4 and all(loss > 0 for loss in losses(run))
    assert len(losses(run, "held_out_loss")) == 3
    assert sorted(path.name for path in (run.folder / "validation").iterdir()) == [
        "step-0000000.png", "step-0000002.png", "step-0000004.png", "target.png"
    ]  # fmt: skip
    with Image.open(run.folder / "validation.png") as strip:
        assert strip.width > 4 * 128 and strip.height > 3 * 128
    facts, card = load_metadata(run.adapter), (run.adapter / "README.md").read_text()
    assert (
        facts["w_train"]
        == (
            facts["train"]["guidance_scale"]
            + (options.get("guidance_scale_max") or facts["train"]["guidance_scale"])
        )
        / 2
    )
    objective = options.get("objective", "guidance")
    assert facts["objective"] == objective and facts["train"]["target_modules"] == options.get(
        "target_modules", "attention"
    )
    card_data = ModelCard(card, ignore_metadata_errors=False).data.to_dict()
    assert (card_data["library_name"], card_data["pipeline_tag"], card_data["license"]) == (
        "diffusers",
        "text-to-image",
        "mit",
    )
    assert {"lora", objective} <= set(card_data["tags"]) and "base_model" not in card_data
    assert ("guides twice" in card) == (objective != "finetune")
    assert ("LCMScheduler" in card) == (objective == "consistency")
    assert ('timestep_spacing="trailing"' in card) == (objective == "distribution")
    sentence = (
        'in 2 steps, or in 1 step with timestep_spacing="leading" and steps_offset=399, with DDIM'
    )
    assert (sentence in card) == (objective == "distribution")
    keys = load_file(run.adapter / LORA_FILE)
    assert not any("fake_score" in key for key in keys), "it is thrown away"
    assert ("guidance_scale=4" in card) == (objective == "finetune")
    pipeline = find_base("embedded").pipeline()
    pipeline.load_lora_weights(run.adapter)
    assert run.stage_record("train")["stock_difference"] < 1e-2


def test_few_steps_are_learned_from_prompts_alone(train, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("A person holding a cat\nA boy is watching TV\n" * 3)
    run = prepare(Prepare(str(tmp_path / "run"), source=str(prompts))).run
    options = {"steps": 2, "batch_size": 3, "validation_steps": 0, "log_every": 1}
    train(Train(str(run.folder), objective="distribution", few_steps=[4, 2], **options))
    assert len(losses(run)) == 2 and (run.adapter / LORA_FILE).is_file()
    # the other objectives learn from images
    with pytest.raises(DataError, match="has prompts without images.*objective.*distribution"):
        check_cache(run.cache, Train(objective="consistency"))


def test_all_weights_are_trained_and_saved_as_a_pipeline(new_run, train):
    run = trained(new_run, train, method="full", learning_rate=1e-4, steps=2, zero_stage=2)
    pipeline = StableDiffusionPipeline.from_pretrained(run.model)
    learned, base = pipeline.unet.state_dict(), find_base("embedded").denoiser().state_dict()
    assert learned.keys() == base.keys()
    changed = [key for key, value in learned.items() if not torch.equal(value, base[key])]
    assert len(changed) > 0.9 * len(base), "every weight learns"
    assert "DiffusionPipeline.from_pretrained" in (run.model / "README.md").read_text()
    assert not run.adapter.exists() and load_metadata(run.model)["train"]["method"] == "full"
    size = sum(path.stat().st_size for path in (run.model / "unet").iterdir())
    assert size > sum(value.numel() for value in base.values()) * 4


def test_a_loss_that_is_not_finite_is_reported_with_step_and_examples(new_run, start_training):
    run = new_run()
    config = Train(
        run=str(run.folder),
        steps=50,
        learning_rate=10.0,
        max_grad_norm=1e6,
        lr_warmup_steps=0,
        num_processes=1,
        mixed_precision="fp32",
        target_modules="all",
    )
    code = start_training(config).wait()
    error = run.stage_record("train").get("error", "")
    assert code != 0 and "the loss is not finite at step" in error and "picturebook-0-" in error, (
        error
    )


def test_a_damaged_cache_file_is_named(prepared, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(prepared.cache, folder)
    check_cache(folder, Train())
    latents = next((folder / "latents").iterdir())
    latents.write_bytes(latents.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match=f"{latents.name} is missing or damaged.*1_prepare"):
        check_cache(folder, Train())
    latents.unlink()
    with pytest.raises(DataError, match="missing or damaged"):
        check_cache(folder, Train())


def test_a_base_other_than_the_cache_s_is_refused(prepared, tmp_path, start_training):
    run = Run(tmp_path / "run")
    shutil.copytree(prepared.cache, run.cache)
    meta = json.loads((run.cache / "cache.json").read_text())
    (run.cache / "cache.json").write_text(json.dumps(meta | {"base_hash": "another"}))
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    run.metrics.write_text('{"step": 1, "loss": 0.5, "seconds": 1.0}\n')
    code = start_training(Train(run=str(run.folder), steps=1, num_processes=1)).wait()
    assert (
        "base 'embedded' is not the one that the cache was made with"
        in run.stage_record("train")["error"]
    )
    assert code != 0 and not run.adapter.exists()
    assert losses(run) == [], "the lines of the training before are gone before anything is built"
