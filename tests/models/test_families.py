"""Every family of bases: prepared, trained on DeepSpeed, compared, and in a stock pipeline."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from nbs_lib.compare import compare
from nbs_lib.compare.sampling.sampler import load_sampler
from nbs_lib.config import Compare, Prepare, Train
from nbs_lib.diffusion import classifier_free_guidance
from nbs_lib.export import export
from nbs_lib.models import StableDiffusion, find_base
from nbs_lib.models.lora.checks import lora_targets_of
from nbs_lib.models.lora.layers import add_fake_score, add_lora
from nbs_lib.models.sampling_recipe import step_options
from nbs_lib.prepare import open_cache, prepare
from nbs_lib.run.run import Run
from nbs_lib.train.data.dataset import Examples
from nbs_lib.train.objectives import distribution
from nbs_lib.train.student import Student

pytestmark = pytest.mark.slow

PROCESSES = {"sd1": 1, "sd2-v": 1, "sdxl": 2, "sd3": 1, "sd3-t5": 1}
SIZE = 32
STEPS = 3
W = 4.0
PROMPTS = ["A person holding a cat", "A road that is going down a hill!"]
STOCK = """
import json, sys
import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

folder, adapter, out, size, steps, w, prompts, options = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, **json.loads(options))
# of a flow the base's own scheduler samples
if hasattr(pipe, "unet"):
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)

def draw(w):
    options = {"height": int(size), "width": int(size), "num_inference_steps": int(steps)}
    noise = [torch.Generator().manual_seed(7) for _ in json.loads(prompts)]
    images = pipe(json.loads(prompts), generator=noise, guidance_scale=w, **options).images
    return np.stack([np.asarray(image) for image in images])

pictures = {"unguided": draw(1.0), "guided": draw(float(w))}
pipe.load_lora_weights(adapter)
pictures["tuned"] = draw(1.0)
assert "nbs_lib" not in sys.modules
np.savez(out, **pictures)
"""


@pytest.fixture(scope="module", params=PROCESSES)
def cached(request, tiny_base, tmp_path_factory, one_thread) -> Run:
    """A cache on a tiny base of the family, with teacher predictions."""
    folder = tmp_path_factory.mktemp("my rüns")
    base = tiny_base(request.param, folder / request.param)
    options = {"max_examples": 8, "resolution": SIZE, "teacher_cache": "data", "teacher_samples": 2}
    return prepare(Prepare(str(folder / "outputs" / "run"), str(base), **options)).run


def train_two_steps(run: Run, train, **options):
    """Train at a rate that changes the pictures, with validation before and after."""
    options |= {
        "guidance_scale": W,
        "steps": 2,
        "batch_size": 2,
        "lr_warmup_steps": 0,
        "validation_steps": 2,
        "mixed_precision": "bf16",
    }
    train(Train(str(run.folder), **options))


@pytest.fixture(scope="module")
def run(cached, train) -> Run:
    """The cached run, trained and compared."""
    train_two_steps(
        cached, train, learning_rate=0.3, num_processes=PROCESSES[base_of(cached).folder.name]
    )
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
        json.dumps(base_of(run).load_options),
    ]
    command = [sys.executable, "-c", STOCK, *map(str, arguments)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    results = json.loads((run.compare / "results.json").read_text())
    ours = {}
    for name in ("unguided", "guided", "tuned"):
        files = [run.compare / picture["files"][name] for picture in results["pictures"]]
        ours[name] = np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)
    assert ours["tuned"].shape == (2, SIZE, SIZE, 3)
    for name in ("guided", "tuned"):
        assert np.abs(ours[name] - ours["unguided"]).max() > 5, (
            f"{name} could be mistaken for unguided"
        )
    with np.load(tmp_path / "stock.npz") as stock:
        for name, pictures in ours.items():
            assert np.abs(stock[name].astype(int) - pictures).max() <= 1, name


def test_nfe_and_the_recorded_launch(run):
    results = json.loads((run.compare / "results.json").read_text())
    nfe = {name: contender["nfe"] for name, contender in results["contenders"].items()}
    assert nfe == {"unguided": 3, "guided": 6, "tuned": 3}
    record = run.stage_record("train")
    assert record["distributed_type"] == "DEEPSPEED" and record["stock_difference"] < 1e-4
    assert record["parameters"]["num_processes"] == record["processes"]
    assert (run.folder / "validation.png").is_file()


def stock_pipeline(
    base: StableDiffusion, folder: Path | None = None, **spacing
) -> DiffusionPipeline:
    """The stock pipeline, with the scheduler of a comparison."""
    pipe = DiffusionPipeline.from_pretrained(folder or base.folder, **base.load_options)
    if not base.is_flow:
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **spacing)
    return pipe


def watch_calls(denoiser: torch.nn.Module) -> list[tuple[torch.Tensor, ...]]:
    """Return a list that gets x_t, t and output of each call."""
    calls = []

    def add(denoiser, args, kwargs, output):
        x_t, t = args[:2] if args else (kwargs["hidden_states"], kwargs["timestep"])
        calls.append((x_t, t, output[0]))

    denoiser.register_forward_hook(add, with_kwargs=True)
    return calls


def student_of(run: Run) -> Student:
    base = base_of(run)
    unet = base.denoiser()
    add_lora(unet, 2, 2.0, seed=0)
    return Student(unet, base.noise_schedule(), base.predict, torch.float32)


def test_the_teacher_is_the_stock_pipeline_s_guided_prediction(cached):
    """The teacher takes its texts from the cache, the stock pipeline from the captions."""
    batch = Examples(
        cached.cache, Train(guidance_scale=W, validation_examples=0, batch_size=3)
    ).batch(0, 0, 1)
    captions = [open_cache(cached.cache).captions[i] for i in batch.example]
    x_t = batch.noise
    base = base_of(cached)
    pipe = stock_pipeline(base)
    calls = watch_calls(base.denoiser_of(pipe))
    pipe(
        captions,
        latents=x_t,
        height=SIZE,
        width=SIZE,
        guidance_scale=W,
        num_inference_steps=2,
        output_type="latent",
    )
    _, t, output = calls[0]
    # a flow's are as many as rows
    t = t.flatten()[:1].expand(3)
    teacher = student_of(cached).teacher(x_t, dataclasses.replace(batch, t=t))
    guided = classifier_free_guidance(*output.chunk(2), W)
    torch.testing.assert_close(teacher, guided, rtol=1e-4, atol=1e-5)


def test_cached_predictions_are_the_teacher_s(cached):
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


def test_few_steps_are_those_of_the_stock_pipeline_and_both_adapters_learn(cached):
    options = {"few_steps": [2], "validation_examples": 0, "batch_size": 3}
    config = Train(objective="distribution", **options)
    batch = Examples(cached.cache, config).batch(0, 0, 1)
    student = student_of(cached)
    add_fake_score(student.denoiser, seed=1)
    # again, because the layers are found when it is made
    student = Student(student.denoiser, student.schedule, student.predict, torch.float32)
    states, times = student.states(batch)
    base = base_of(cached)
    pipe = stock_pipeline(base, timestep_spacing="trailing")
    calls = watch_calls(base.denoiser_of(pipe))
    steps = step_options(type(pipe.scheduler).__name__, "trailing", 2)
    captions = open_cache(cached.cache).captions
    pipe(
        [captions[i] for i in batch.example],
        latents=batch.noise,
        height=SIZE,
        width=SIZE,
        guidance_scale=1,
        output_type="latent",
        **steps,
    )
    for row, position in enumerate(batch.rollout.position.tolist()):
        x_t, t, _ = calls[position]
        assert float(t.flatten()[0]) == pytest.approx(float(student.schedule.times(times[row])))
        torch.testing.assert_close(states[row], x_t[row], rtol=1e-3, atol=1e-4)
    losses = distribution(student, student, batch, config)
    losses.mean().backward()
    assert losses.isfinite().all()
    for name, parameter in student.named_parameters():
        learns = "lora_B" in name or name == "denoiser.fake_score_steps"
        # nothing reads the text behind the last block of a transformer
        learns = learns and "transformer_blocks.1.attn.add_q_proj" not in name
        assert not learns or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("to", ["diffusers", "kohya", "merged"])
def test_exports_sample_the_run_s_pictures(run, to):
    """The export itself compares a stock pipeline's pictures with the run's before it writes."""
    folder = export(run.folder, to)
    assert (folder / "README.md").is_file()
    if to == "kohya" and base_of(run).is_flow:
        keys = load_file(next(folder.glob("*.safetensors")))
        layers = {key.removeprefix("transformer.").partition(".lora_")[0] for key in keys}
        # which are names that ComfyUI knows, see test_lora_compatibility
        assert layers and layers <= lora_targets_of(base_of(run).denoiser()).keys()
    # diffusers has no mark of a transformer that holds its guidance
    if to == "merged" and base_of(run).can_embed_guidance:
        pipe = DiffusionPipeline.from_pretrained(folder)
        options = {"height": SIZE, "width": SIZE, "num_inference_steps": STEPS, "output_type": "np"}
        pictures = [
            pipe(PROMPTS[0], generator=torch.Generator().manual_seed(7), **options, **w).images
            for w in ({}, {"guidance_scale": 1})
        ]
        np.testing.assert_array_equal(*pictures)


def test_full_training_and_sampling(cached, new_run, train):
    full = new_run(cached)
    train_two_steps(
        full, train, method="full", objective="finetune", learning_rate=1e-3, num_processes=1
    )
    pipe = stock_pipeline(base_of(cached), full.model)
    assert type(pipe) is base_of(cached).pipeline_class
    sampler = load_sampler(full)
    tuned = sampler.sample(sampler.resolver.resolve("tuned", STEPS), PROMPTS[:1], [7])
    assert tuned.nfe == 2 * STEPS
    options = {
        "height": SIZE,
        "width": SIZE,
        "num_inference_steps": STEPS,
        "guidance_scale": W,
        "output_type": "np",
    }
    [stock] = pipe(PROMPTS[0], generator=torch.Generator().manual_seed(7), **options).images
    assert np.abs((stock * 255).round() - tuned.images[0]).max() <= 1


def test_pooled_texts_are_cached_for_families_that_have_them(cached):
    cache = open_cache(cached.cache)
    unconditional = cache.unconditional
    if type(base_of(cached)) is StableDiffusion:
        assert (
            set(unconditional) == {"empty", "negative"} and unconditional["empty"].abs().max() > 0
        )
    else:
        width = 48 if base_of(cached).is_flow else 24
        pooled = cache.embeddings(list(range(8)), "pooled")
        assert pooled.shape == (8, width) and unconditional["empty_pooled"].shape == (width,)
        zeros = not unconditional["empty"].any() and not unconditional["empty_pooled"].any()
        # of SDXL the stock pipeline guides away from zeros, of SD 3 from the empty prompt
        assert zeros is not base_of(cached).is_flow
        assert len(pooled.unique(dim=0)) == len(set(cache.captions)), "each caption's own"
