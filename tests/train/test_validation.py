"""Validation: held-out losses, and pictures of held-out captions or of the parameters' prompts."""

import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from nbs_lib.config import Train
from nbs_lib.models import find_base
from nbs_lib.run.run import Run
from nbs_lib.train import validation as validate
from nbs_lib.train.checkpoint.best import BestWeights
from nbs_lib.train.data.dataset import Examples
from nbs_lib.train.memory.dry_run import dry_run
from nbs_lib.train.monitor.progress_strip import GAP, LABEL_WIDTH
from nbs_lib.train.student import Student
from nbs_lib.train.validation import Validation

SIDE = 128
"""Pixels of a small picture enlarged."""


@pytest.fixture
def validation(prepared, tmp_path, monkeypatch):
    """`validation(**options)`: that of a training in one process, with pictures in two steps."""
    monkeypatch.setattr(validate, "SAMPLING_STEPS", 2)

    def call(**options) -> Validation:
        config, base = (
            Train(
                str(tmp_path / "run"),
                **{"objective": "finetune", "validation_steps": 1} | options,
            ),
            find_base("embedded"),
        )
        student = Student(base.denoiser(), base.noise_schedule(), base.predict, torch.float32)
        parts = SimpleNamespace(
            base=base,
            examples=Examples(prepared.cache, config),
            student=student,
            parameters=[],
            learned=[],
            ema_weights=nullcontext,
        )
        alone = SimpleNamespace(
            is_main_process=True, device=torch.device("cpu"), wait_for_everyone=lambda: None
        )
        run = Run(config.run)
        shutil.rmtree(run.folder, ignore_errors=True)
        run.folder.mkdir(parents=True, exist_ok=True)
        best = BestWeights(config, run, parts, alone)
        return Validation(run, config, parts, best, alone, 0)

    return call


def validated(validation: Validation) -> tuple[list[dict], int]:
    """Return the lines of the log and the number of pictures in the row of one validation."""
    lines = []
    assert validation.due(1)
    validation.validate(1, SimpleNamespace(write=lines.append))
    path = validation.folder / "step-0000001.png"
    if not path.exists():
        return lines, 0
    with Image.open(path) as row:
        return lines, (row.width + GAP) // (SIDE + GAP)


def test_prompts_are_sampled_without_held_out_examples(validation):
    prompts = ["A person holding a cat", "A house by a tree", "A red ball"]
    options = {"validation_prompts": prompts, "num_validation_images": 2}
    prompted = validation(validation_examples=0, **options)
    assert validated(prompted) == ([], 6)
    base = prompted.training.base
    text = base.encode_prompt(prompts, base.text_encoders()).context.repeat_interleave(2, 0)
    torch.testing.assert_close(prompted.text.context, text, rtol=1e-4, atol=1e-5)
    assert len({tuple(noise.flatten().tolist()) for noise in prompted.noise}) == 6, (
        "each from a noise of its own"
    )
    latents = prompted.sample_all(prompted.student_passes())
    assert not torch.equal(latents[0], latents[2])


def test_num_validation_images_limits_the_held_out_captions(validation):
    lines, pictures = validated(validation(validation_examples=4, num_validation_images=3))
    assert pictures == 3 and lines[0].keys() == {"step", "held_out_loss", "best_step"}
    lines, pictures = validated(validation(validation_examples=4, num_validation_images=0))
    assert pictures == 0 and len(lines) == 1


def strip_rows(validation: Validation) -> list[np.ndarray]:
    """Return the rows of validation.png: the part with pictures, uint8 [SIDE, w, 3] each."""
    with Image.open(validation.run.folder / "validation.png") as strip:
        pixels = np.asarray(strip.convert("RGB"))[:, LABEL_WIDTH:-GAP]
    height = SIDE + GAP
    count = (len(pixels) - GAP) // height
    return [pixels[len(pixels) - (row + 1) * height :][:SIDE] for row in reversed(range(count))]


def test_the_strip_has_captions_and_targets(validation):
    """In finetune the targets are the held-out pictures, in guidance the teacher's."""
    log = SimpleNamespace(write=lambda line: None)
    own = validation(validation_examples=4, num_validation_images=2)
    own.validate(0, log)
    assert own.captions == own.examples.captions(own.examples.held_out[:2])
    target, first = strip_rows(own)
    with Image.open(own.folder / "target.png") as row:
        decoded = own.decode_row(own.examples.clean_latents(own.examples.held_out[:2]))
        assert np.array_equal(np.asarray(row), np.asarray(decoded))
        assert np.array_equal(target, np.asarray(row))
    assert not np.array_equal(target, first)
    # the untrained student is its teacher, sampled without guidance
    guided = validation(objective="guidance", guidance_scale=1.0, num_validation_images=2)
    guided.validate(0, log)
    target, first = strip_rows(guided)
    assert np.abs(target.astype(int) - first).max() <= 1, "at w = 1 both are one pass"


def test_a_prompt_has_no_target_in_finetune(validation):
    prompted = validation(validation_examples=0, validation_prompts=["A red ball"])
    prompted.validate(0, SimpleNamespace(write=lambda line: None))
    assert not (prompted.folder / "target.png").exists() and len(strip_rows(prompted)) == 1


def test_nothing_is_due_without_pictures_and_held_out_examples(validation):
    assert not validation(validation_examples=0).due(1)
    assert not validation(
        validation_examples=0, validation_prompts=["a cat"], num_validation_images=0
    ).due(1)


def test_the_memory_plan_includes_the_text_encoder_of_prompts(prepared):
    with_prompts, without = (
        dry_run(
            Train(mixed_precision="bf16", validation_examples=0, validation_prompts=prompts),
            prepared.cache,
            gpu=False,
        ).decoding
        for prompts in (["a cat"], [])
    )
    assert without == 0 < with_prompts
