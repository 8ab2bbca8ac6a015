"""Trainings on a flow: the teacher's cached trajectories, and few steps as they are sampled."""

import pytest
import torch

from nbs_lib.compare.sampling.sampler import load_sampler
from nbs_lib.config import Prepare, Train
from nbs_lib.models import find_base
from nbs_lib.models.lora.metadata import LORA_FILE, load_metadata
from nbs_lib.prepare import prepare
from nbs_lib.run.run import Run
from nbs_lib.train.data.batch import Batch, Rollout
from nbs_lib.train.student import Student

pytestmark = pytest.mark.slow

PROMPT = "A person holding a cat"
SEED = 7
EULER = "FlowMatchEulerDiscreteScheduler"
OPTIONS = {
    "batch_size": 4,
    "num_processes": 1,
    "mixed_precision": "fp32",
    "learning_rate": 0.003,
    "lr_warmup_steps": 0,
    "num_validation_images": 1,
}


@pytest.fixture(scope="module")
def cached(tiny_base, tmp_path_factory, one_thread) -> Run:
    """A cache on a tiny SD 3, with trajectories of its teacher."""
    folder = tmp_path_factory.mktemp("my rüns")
    base = tiny_base("sd3", folder / "base")
    options = {"max_examples": 16, "resolution": 32, "num_processes": 1, "teacher_samples": 3}
    return prepare(
        Prepare(str(folder / "run"), str(base), **options, teacher_cache="trajectories")
    ).run


def test_guidance_is_learned_on_cached_trajectories(cached, new_run, train):
    run = new_run(cached)
    train(Train(str(run.folder), teacher="cached", steps=30, validation_steps=10, **OPTIONS))
    first, last = run.stage_record("train")["held_out_loss"]
    assert 0 < last < first
    metadata = load_metadata(run.adapter)
    assert metadata["sampling"]["scheduler"] == EULER
    # the dial is measured on samples of the teacher, whose timesteps are no whole numbers
    assert metadata["dial"][-1][0] > 1


@pytest.fixture(scope="module")
def few_steps(cached, new_run, train) -> Run:
    """A run that learned to sample in two steps, or one."""
    run = new_run(cached)
    options = {"objective": "distribution", "few_steps": [2, 1]}
    train(Train(str(run.folder), steps=4, validation_steps=4, **options, **OPTIONS))
    return run


def generated(run: Run, steps: int) -> torch.Tensor:
    """Return the latents [1, c, h, w] that the training's own trajectory of `steps` ends in."""
    base = find_base(run.stage_record("prepare")["parameters"]["base"])
    denoiser = base.denoiser()
    base.load_adapter(denoiser, run.adapter / LORA_FILE)
    student = Student(denoiser, base.noise_schedule(), base.predict, torch.float32).eval()
    text = base.encode_prompt([PROMPT], base.text_encoders())
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(SEED))
    row = torch.zeros(1, dtype=torch.int64)
    batch = Batch(
        latents=noise,
        noise=noise,
        t=row,
        context=text.context,
        uncond=text.context,
        w=torch.ones(1),
        weight=torch.ones(1),
        example=row,
        pooled=text.pooled,
        rollout=Rollout(steps, row, row, row + steps - 1, noise),
    )
    x_t, t = student.states(batch)
    with torch.no_grad():
        return student.x_0(student(x_t, t, text.context, text.pooled), x_t, t)


def test_few_steps_are_sampled_as_they_were_learned(few_steps):
    sampling = load_metadata(few_steps.adapter)["sampling"]
    assert sampling == {
        "guidance_scale": 1.0,
        "scheduler": EULER,
        "timestep_spacing": "trailing",
        "steps": 2,
    }
    sampler = load_sampler(few_steps)
    for steps, name in ((2, "tuned"), (1, "tuned in 1 step")):
        samples = sampler.sample(sampler.resolver.resolve(name, 25), [PROMPT], [SEED])
        assert samples.nfe == steps
        torch.testing.assert_close(samples.latents, generated(few_steps, steps), rtol=0, atol=1e-3)
    assert (few_steps.folder / "validation" / "step-0000004.png").is_file()


def test_consistency_is_learned_between_levels_of_a_flow(cached, new_run, train):
    run = new_run(cached)
    options = {"objective": "consistency", "steps": 2, "validation_steps": 2}
    train(Train(str(run.folder), **options, **OPTIONS))
    sampling = load_metadata(run.adapter)["sampling"]
    assert (sampling["scheduler"], sampling["steps"]) == ("FlowMatchLCMScheduler", 4)
    sampler = load_sampler(run)
    samples = sampler.sample(sampler.resolver.resolve("tuned", 25), [PROMPT], [SEED])
    assert samples.nfe == 4 and samples.latents.isfinite().all()
    assert (run.folder / "validation" / "step-0000002.png").is_file()
