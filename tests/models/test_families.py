"""Each family of bases all the way: prepared, trained on DeepSpeed, compared, its adapter in a stock pipeline."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from PIL import Image

from nbs_lib.compare import compare
from nbs_lib.compare.sampling.sampler import load_sampler
from nbs_lib.config import Compare, Prepare, Train
from nbs_lib.diffusion import classifier_free_guidance
from nbs_lib.export import export
from nbs_lib.models import StableDiffusion, find_base
from nbs_lib.models.lora import add_lora
from nbs_lib.prepare import open_cache, prepare
from nbs_lib.run.run import Run
from nbs_lib.train.dataset import Examples
from nbs_lib.train.student import Student

pytestmark = pytest.mark.slow

PROCESSES = {"sd1": 1, "sd2-v": 1, "sdxl": 2}
SIZE, STEPS, W = 32, 3, 4.0
PROMPTS = ["A person holding a cat", "A road that is going down a hill!"]
STOCK = """
import json, sys
import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

folder, adapter, out, size, steps, w, prompts = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)

def draw(w):
    how = {"height": int(size), "width": int(size), "num_inference_steps": int(steps), "guidance_scale": w}
    noise = [torch.Generator().manual_seed(7) for _ in json.loads(prompts)]
    return np.stack([np.asarray(image) for image in pipe(json.loads(prompts), generator=noise, **how).images])

drawn = {"unguided": draw(1.0), "guided": draw(float(w))}
pipe.load_lora_weights(adapter)
drawn["tuned"] = draw(1.0)
assert "nbs_lib" not in sys.modules
np.savez(out, **drawn)
"""


@pytest.fixture(scope="module", params=PROCESSES)
def cached(request, tiny_base, tmp_path_factory, one_thread) -> Run:
    """A cache on a tiny base of the family, with kept answers of the teacher."""
    place = tmp_path_factory.mktemp("my rüns")
    base = tiny_base(request.param, place / request.param)
    how = {"max_examples": 8, "resolution": SIZE, "teacher_cache": "data", "teacher_samples": 2}
    return prepare(Prepare(str(place / "outputs" / "run"), str(base), **how)).run


def trained(run: Run, train, **how):
    """Two steps at a rate that changes the pictures, with a look at held-out examples before and after."""
    how |= {
        "guidance_scale": W,
        "steps": 2,
        "batch_size": 2,
        "lr_warmup_steps": 0,
        "validation_steps": 2,
        "mixed_precision": "bf16",
    }
    train(Train(str(run.folder), **how))


@pytest.fixture(scope="module")
def run(cached, train) -> Run:
    """The same trained and compared."""
    trained(cached, train, learning_rate=0.3, num_processes=PROCESSES[base_of(cached).folder.name])
    compare(Compare(str(cached.folder), PROMPTS, seeds=[7], steps=STEPS, captions=0))
    return cached


def base_of(run: Run):
    return find_base(run.stage_record("prepare")["parameters"]["base"])


def test_a_stock_pipeline_draws_the_same_pictures(run, tmp_path):
    arguments = [
        base_of(run).folder,
        run.adapter,
        tmp_path / "stock.npz",
        SIZE,
        STEPS,
        W,
        json.dumps(PROMPTS),
    ]
    command = [sys.executable, "-c", STOCK, *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((run.compare / "results.json").read_text())
    ours = {
        name: np.stack(
            [
                np.asarray(Image.open(run.compare / each["files"][name]))
                for each in results["pictures"]
            ]
        ).astype(int)
        for name in ("unguided", "guided", "tuned")
    }
    assert ours["tuned"].shape == (2, SIZE, SIZE, 3)
    for name in ("guided", "tuned"):
        assert np.abs(ours[name] - ours["unguided"]).max() > 5, (
            f"{name} could be mistaken for unguided"
        )
    with np.load(tmp_path / "stock.npz") as stock:
        for name, pictures in ours.items():
            assert np.abs(stock[name].astype(int) - pictures).max() <= 1, name


def test_passes_are_counted_and_the_launch_was_as_asked(run):
    results = json.loads((run.compare / "results.json").read_text())
    assert {name: told["nfe"] for name, told in results["contenders"].items()} == {
        "unguided": 3,
        "guided": 6,
        "tuned": 3,
    }
    record = run.stage_record("train")
    assert record["distributed_type"] == "DEEPSPEED" and record["stock_difference"] < 1e-4
    assert (
        record["parameters"]["num_processes"] == record["processes"]
        and (run.folder / "validation.png").is_file()
    )


def student_of(run: Run) -> Student:
    base = base_of(run)
    unet = base.unet()
    add_lora(unet, 2, 2.0, seed=0)
    return Student(
        unet,
        base.scheduler().alphas_cumprod,
        base.prediction_type,
        torch.float32,
        added_cond_kwargs=base.added_cond_kwargs,
    )


def test_the_teacher_is_the_stock_pipeline_s_guided_prediction(cached):
    """From the cache alone, where the texts are; a stock pipeline reads the captions."""
    batch = Examples(
        cached.cache, Train(guidance_scale=W, validation_examples=0, batch_size=3)
    ).batch(0, 0, 1)
    captions, x_t, seen = (
        [open_cache(cached.cache).captions[i] for i in batch.example],
        batch.noise,
        [],
    )
    pipe = DiffusionPipeline.from_pretrained(base_of(cached).folder)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.unet.register_forward_hook(lambda unet, given, answer: seen.append((given[1], answer[0])))
    pipe(
        captions,
        latents=x_t,
        height=SIZE,
        width=SIZE,
        guidance_scale=W,
        num_inference_steps=2,
        output_type="latent",
    )
    t, answer = seen[0]
    teacher = student_of(cached).teacher(x_t, dataclasses.replace(batch, t=t.expand(3)))
    torch.testing.assert_close(
        teacher, classifier_free_guidance(*answer.chunk(2), W), rtol=1e-4, atol=1e-5
    )


def test_kept_answers_are_the_teacher_s(cached):
    batch = Examples(
        cached.cache, Train(teacher="cached", guidance_scale=W, validation_examples=0, batch_size=4)
    ).batch(0, 0, 1)
    student = student_of(cached)
    x_t = student.noisy_latents(batch)
    live = student.teacher(x_t, dataclasses.replace(batch, answers=None))
    assert batch.answers is not None
    torch.testing.assert_close(
        student.teacher(x_t, batch.to(torch.device("cpu"))), live, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("to", ["diffusers", "kohya", "merged"])
def test_exports_draw_the_run_s_pictures(run, to):
    """The export itself holds a stock pipeline's pictures against the run's before it keeps anything."""
    folder = export(run.folder, to)
    assert (folder / "README.md").is_file()
    if to == "merged":
        pipe = DiffusionPipeline.from_pretrained(folder)
        how = {"height": SIZE, "width": SIZE, "num_inference_steps": STEPS, "output_type": "np"}
        drawn = [
            pipe(PROMPTS[0], generator=torch.Generator().manual_seed(7), **how, **w).images
            for w in ({}, {"guidance_scale": 1})
        ]
        np.testing.assert_array_equal(*drawn)


def test_all_weights_are_trained_and_drawn_from(cached, new_run, train):
    full = new_run(cached)
    trained(full, train, method="full", objective="finetune", learning_rate=1e-3, num_processes=1)
    pipe = DiffusionPipeline.from_pretrained(full.model)
    assert type(pipe) is base_of(cached).pipeline_class
    tuned = load_sampler(full).sample("tuned", PROMPTS[:1], [7], STEPS)
    assert tuned.nfe == 2 * STEPS
    how = {
        "height": SIZE,
        "width": SIZE,
        "num_inference_steps": STEPS,
        "guidance_scale": W,
        "output_type": "np",
    }
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    [stock] = pipe(PROMPTS[0], generator=torch.Generator().manual_seed(7), **how).images
    assert np.abs((stock * 255).round() - tuned.images[0]).max() <= 1


def test_a_cache_has_pooled_texts_where_the_family_has_them(cached):
    cache = open_cache(cached.cache)
    away = cache.unconditional
    if type(base_of(cached)) is StableDiffusion:
        assert set(away) == {"empty", "negative"} and away["empty"].abs().max() > 0
    else:
        pooled = cache.embeddings(list(range(8)), "pooled")
        assert pooled.shape == (8, 24) and away["empty_pooled"].shape == (24,)
        assert not away["empty"].any() and not away["empty_pooled"].any(), (
            "the stock pipeline guides away from zeros"
        )
        assert len(pooled.unique(dim=0)) == len(set(cache.captions)), "each caption's own"
