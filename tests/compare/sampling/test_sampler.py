import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from nbs_lib.compare.sampling import sampler as sampler_module
from nbs_lib.compare.sampling.profiler import SamplingProfiler
from nbs_lib.compare.sampling.sampler import Sampler, Samples, load_sampler
from nbs_lib.config.contenders import CONTENDERS, DIFFUSION_SAMPLERS, parse_contender
from nbs_lib.files import ROOT
from nbs_lib.models import EMBEDDED, BaseError
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

PROMPTS = ["A person holding a cat", "A road that is going down a hill", "A boy is watching TV"]
SEEDS = [3, 0, 11]
STEPS = 3
W = 2.5  # what the fixture's adapter says it was trained for


def sample(
    sampler: Sampler,
    name: str,
    prompts: list[str],
    seeds: list[int],
    steps: int,
    watch=None,
    **options,
) -> Samples:
    """Return a contender's samples. options: of `SettingsResolver.resolve`."""
    settings = sampler.resolver.resolve(name, steps, **options)
    return sampler.sample(settings, prompts, seeds, watch or (lambda step, n_steps: None))


def apart(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of two pictures, in 1/255."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.fixture(scope="module")
def sampler(base, adapter) -> Sampler:
    return Sampler(base, adapter, batch_size=2)


@pytest.fixture(scope="module")
def samples_by_name(sampler):
    """Three pictures of each contender, in batches of two and one, the base's sampled first."""
    return {name: sample(sampler, name, PROMPTS, SEEDS, STEPS) for name in CONTENDERS}


def test_pictures_and_costs_have_their_shapes(samples_by_name):
    for samples in samples_by_name.values():
        assert samples.images.shape == (3, 128, 128, 3) and samples.images.dtype == np.uint8
        assert samples.latents.shape == (3, 16, 16, 16) and samples.latents.dtype == torch.float32
        assert samples.seconds > 0 and samples.memory_mib > 0
        assert samples.memory_kind == ("GPU peak" if torch.cuda.is_available() else "process peak")


def test_passes_are_counted(sampler, samples_by_name):
    assert {name: samples.nfe for name, samples in samples_by_name.items()} == {
        "unguided": 3,
        "guided": 6,
        "tuned": 3,
    }
    assert sample(sampler, "guided", PROMPTS[:1], [0], 2, guidance=1.0).nfe == 2


def test_guidance_of_an_adapter_that_holds_guidance_is_warned_of(sampler):
    with pytest.warns(
        UserWarning, match="given 3; this adapter was trained for 1, and is guided twice"
    ):
        assert sample(sampler, "tuned", PROMPTS[:1], [0], 2, guidance=3.0).nfe == 4


def test_guidance_uses_the_training_negative_prompt(base, adapter, tmp_path):
    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.metadata import load_metadata
    from nbs_lib.models.lora.saving import save_adapter

    unet = base.denoiser()
    add_lora(unet, 4, 4.0, seed=0)
    save_adapter(
        tmp_path, unet, load_metadata(adapter) | {"negative": "A beach with a lot of waves on it"}
    )
    sampler, pipe = Sampler(base, tmp_path), base.pipeline()
    samples = sample(sampler, "guided", PROMPTS[:1], [0], STEPS)
    options = {
        "num_inference_steps": STEPS,
        "guidance_scale": W,
        "generator": [torch.Generator().manual_seed(0)],
    }
    stock = pipe(
        PROMPTS[:1],
        negative_prompt=["A beach with a lot of waves on it"],
        output_type="np",
        **options,
    ).images
    assert apart(samples.images, (stock * 255).round()) <= 1
    with pytest.warns(UserWarning, match="guided twice"):
        sample(sampler, "tuned", PROMPTS[:1], [0], 1, guidance=2.0)


def test_few_step_adapters_use_their_own_recipe(base, adapter, tmp_path):
    """The same weights, recorded as a consistency adapter: other pictures, in four passes."""
    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.metadata import load_metadata
    from nbs_lib.models.lora.saving import save_adapter

    unet = base.denoiser()
    add_lora(unet, 4, 4.0, seed=0)
    few = {"guidance_scale": 1.0, "scheduler": "LCMScheduler", "steps": 4}
    save_adapter(tmp_path, unet, load_metadata(adapter) | {"sampling": few})
    sampler = Sampler(base, tmp_path)
    before = sample(sampler, "unguided", PROMPTS[:1], [0], STEPS)
    tuned = sample(sampler, "tuned", PROMPTS[:1], [0], STEPS)
    assert tuned.nfe == 4 and apart(tuned.images, before.images) > 20
    after = sample(sampler, "unguided", PROMPTS[:1], [0], STEPS)
    assert after.nfe == STEPS and np.array_equal(after.images, before.images)
    assert sample(Sampler(base, tmp_path, tuned_steps=2), "tuned", PROMPTS[:1], [0], STEPS).nfe == 2
    other = Sampler(base, tmp_path, scheduler="EulerDiscreteScheduler")
    for name, samples in (("tuned", tuned), ("unguided", before)):
        euler = sample(
            sampler, name, PROMPTS[:1], [0], STEPS, scheduler="EulerDiscreteScheduler"
        ).images
        assert (
            np.array_equal(sample(other, name, PROMPTS[:1], [0], STEPS).images, euler)
            and apart(euler, samples.images) > 2
        )


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (2, {"timestep_spacing": "trailing"}),
        (1, {"timestep_spacing": "leading", "steps_offset": 399}),
    ],
)
def test_few_steps_are_those_of_a_stock_pipeline(base, adapter, tmp_path, steps, options):
    """A few-step adapter alone, and with another one beside it, which knows no number of steps."""
    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.metadata import load_metadata
    from nbs_lib.models.lora.saving import save_adapter

    unet = base.denoiser()
    for seed, parameter in enumerate(add_lora(unet, 4, 4.0, seed=0)):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        parameter.data.copy_(0.05 * noise)
    few = {"guidance_scale": 1.0, "scheduler": "DDIMScheduler", "steps": steps}
    few["timestep_spacing"] = "trailing"
    save_adapter(tmp_path, unet, load_metadata(adapter) | {"sampling": few})
    sampler = Sampler(base, tmp_path)
    tuned = sample(sampler, "tuned", PROMPTS[:1], [0], STEPS)
    pipe = base.pipeline()
    pipe.load_lora_weights(tmp_path)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **options)
    stock = pipe(
        PROMPTS[:1],
        num_inference_steps=steps,
        guidance_scale=1,
        generator=[torch.Generator().manual_seed(0)],
        output_type="np",
    ).images
    assert tuned.nfe == steps and apart(tuned.images, (stock * 255).round()) <= 1
    assert apart(tuned.images, sample(sampler, "unguided", PROMPTS[:1], [0], 2).images) > 20
    for both in (f"{adapter} + {tmp_path} at 0.5", f"{tmp_path} + {adapter} at 0.5"):
        settings = sampler.resolver.resolve(both, STEPS)
        assert (settings.steps, settings.timestep_spacing) == (steps, "trailing")


def test_a_full_model_is_sampled_beside_its_base(base, tmp_path):
    facts = {"w_train": 2.0, "base_hash": base.hash}
    pipe = base.pipeline()
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.mul_(1.02)
    pipe.save_pretrained(tmp_path)
    (tmp_path / "onepass.json").write_text(json.dumps(facts))
    sampler = Sampler(base, tmp_path)
    before = sample(sampler, "unguided", PROMPTS[:1], [0], STEPS).images
    tuned = sample(sampler, "tuned", PROMPTS[:1], [0], STEPS)
    noise = torch.Generator().manual_seed(0)
    theirs = pipe(
        PROMPTS[:1],
        num_inference_steps=STEPS,
        guidance_scale=1,
        generator=[noise],
        output_type="np",
    ).images
    assert (
        apart(tuned.images, (theirs * 255).round()) <= 1
        and tuned.nfe == STEPS
        and apart(tuned.images, before) > 20
    )
    assert np.array_equal(sample(sampler, "unguided", PROMPTS[:1], [0], STEPS).images, before)


def test_contenders_differ_only_in_what_they_are(samples_by_name):
    for left, right in (("unguided", "guided"), ("unguided", "tuned"), ("guided", "tuned")):
        assert apart(samples_by_name[left].images, samples_by_name[right].images) > 20


@pytest.mark.parametrize("contender", CONTENDERS)
def test_a_picture_does_not_depend_on_its_batch(sampler, samples_by_name, contender):
    for i, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        alone = sample(sampler, contender, [prompt], [seed], STEPS)
        assert apart(alone.images[0], samples_by_name[contender].images[i]) <= 1


def test_the_base_is_the_same_bit_for_bit_after_tuned_at_any_scale(sampler, samples_by_name):
    for scale in (1.0, 0.7, 0.0, -0.5):
        sample(sampler, "tuned", PROMPTS[:1], [0], 1, adapter_scale=scale)
    for name in ("unguided", "guided"):
        again = sample(sampler, name, PROMPTS, SEEDS, STEPS)
        assert torch.equal(again.latents, samples_by_name[name].latents) and np.array_equal(
            again.images, samples_by_name[name].images
        )
    again = sample(sampler, "tuned", PROMPTS, SEEDS, STEPS)
    assert torch.equal(again.latents, samples_by_name["tuned"].latents), (
        "an earlier adapter scale stayed behind"
    )


def test_the_base_comes_back_when_sampling_fails(sampler, samples_by_name, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sampler, "_sample_batch", fail)
        with pytest.raises(KeyboardInterrupt):
            sample(sampler, "tuned", PROMPTS, SEEDS, STEPS)
    assert torch.equal(
        sample(sampler, "unguided", PROMPTS, SEEDS, STEPS).latents,
        samples_by_name["unguided"].latents,
    )


def test_the_adapter_scale_is_a_dial_from_unguided(sampler, samples_by_name):
    off = sample(sampler, "tuned", PROMPTS, SEEDS, STEPS, adapter_scale=0.0)
    assert np.array_equal(off.images, samples_by_name["unguided"].images)
    half = sample(sampler, "tuned", PROMPTS, SEEDS, STEPS, adapter_scale=0.5)
    assert (
        apart(half.images, off.images) > 5
        and apart(half.images, samples_by_name["tuned"].images) > 5
    )


def test_another_guidance_changes_guided_and_never_unguided(sampler, samples_by_name):
    other = sample(sampler, "guided", PROMPTS, SEEDS, STEPS, guidance=6.0)
    assert apart(other.images, samples_by_name["guided"].images) > 5
    same = sample(sampler, "unguided", PROMPTS, SEEDS, STEPS, guidance=6.0)
    assert same.nfe == STEPS and np.array_equal(same.images, samples_by_name["unguided"].images)


STOCK = """
import json, sys
import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

folder, adapter, out, steps, scale, prompts, seeds = sys.argv[1:]
pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
if torch.cuda.is_available():
    pipe.to("cuda")

def draw(w):
    pictures = []
    for prompt, seed in zip(json.loads(prompts), json.loads(seeds)):
        noise = torch.Generator("cpu").manual_seed(seed)
        options = {"num_inference_steps": int(steps), "guidance_scale": w, "generator": noise}
        [image] = pipe(prompt, **options).images
        pictures.append(np.asarray(image))
    return np.stack(pictures)

drawn = {"unguided": draw(1.0), "guided": draw(2.5)}
pipe.load_lora_weights(adapter, adapter_name="a")
drawn["tuned"] = draw(1.0)
pipe.set_adapters("a", float(scale))
drawn["scaled"] = draw(1.0)
assert "nbs_lib" not in sys.modules
np.savez(out, **drawn)
"""


def test_a_stock_pipeline_samples_the_same_pictures(sampler, samples_by_name, adapter, tmp_path):
    out, scale = tmp_path / "stock.npz", 0.6
    arguments = [EMBEDDED, adapter, out, STEPS, scale, json.dumps(PROMPTS), json.dumps(SEEDS)]
    command = [sys.executable, "-c", STOCK, *map(str, arguments)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    scaled = sample(sampler, "tuned", PROMPTS, SEEDS, STEPS, adapter_scale=scale)
    with np.load(out) as stock:
        for name, samples in (samples_by_name | {"scaled": scaled}).items():
            assert apart(stock[name], samples.images) <= 1, name


def test_invalid_requests_are_refused(sampler):
    with pytest.raises(ValueError, match="allowed is unguided, guided, tuned, selective-N"):
        sample(sampler, "base", PROMPTS, SEEDS, STEPS)
    for prompts, seeds in ((PROMPTS, [0]), ([], [])):
        with pytest.raises(ValueError, match="one seed for each prompt"):
            sample(sampler, "tuned", prompts, seeds, STEPS)


def test_a_run_gives_its_sampler_and_another_base_is_refused(base, adapter, run_folder):
    run = Run(run_folder)
    with pytest.raises(FileNotFoundError, match="1_prepare"):
        load_sampler(run)
    run.cache.mkdir(parents=True)
    (run.cache / "cache.json").write_text(
        json.dumps({"base": "embedded", "base_hash": base.hash, "resolution": 128})
    )
    with pytest.raises(FileNotFoundError, match="2_train"):
        load_sampler(run)
    shutil.copytree(adapter, run.adapter)
    loaded = load_sampler(run, batch_size=7)
    assert (loaded.base.name, loaded.resolver.w_train, loaded.batch_size) == ("embedded", 2.5, 7)
    shutil.rmtree(run.adapter)
    run.adapter.mkdir()
    write_adapter_for_another_base(run.adapter, base)
    with pytest.raises(BaseError, match="was trained on .* with hash 0123456789abcdef"):
        load_sampler(run)


def write_adapter_for_another_base(folder, base):
    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.saving import save_adapter

    unet = base.denoiser()
    add_lora(unet, rank=2, alpha=2.0, seed=0)
    save_adapter(
        folder, unet, {"base": "embedded", "base_hash": "0123456789abcdef" * 4, "w_train": 2.5}
    )


def test_importing_compare_touches_no_device_and_leaves_gc_on():
    code = "import gc, torch, nbs_lib.compare; assert gc.isenabled()"
    code += "; assert not torch.cuda.is_initialized()"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("name", "nfe"),
    [("selective-20", 18), ("selective-50", 15), ("hybrid-20", 12), ("hybrid-50", 15)],
)
def test_guidance_ends_after_its_share_of_the_steps(sampler, name, nfe):
    """Ten steps, in batches of two and of one."""
    samples = sample(sampler, name, PROMPTS, SEEDS, 10)
    assert samples.nfe == nfe
    alone = sample(sampler, name, PROMPTS[1:2], SEEDS[1:2], 10)
    assert apart(samples.images[1], alone.images[0]) <= 1, "each of a batch keeps its own prompt"
    other = "guided" if name.startswith("selective") else "tuned"
    assert 0 < apart(samples.images, sample(sampler, other, PROMPTS, SEEDS, 10).images)


def test_no_first_pass_is_timed(base, adapter, monkeypatch):
    """No contender looks slower because it is the first: batches of its sizes ran before."""
    fresh, met, first = Sampler(base, adapter, batch_size=2), set(), []
    within = []

    class Watched(SamplingProfiler):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            within.append(True)

        def seconds(self) -> float:
            within.clear()
            return super().seconds()

    def look(unet, inputs):
        size = name, inputs[0].shape[0]
        if within and size not in met:
            first.append(size)
        met.add(size)

    monkeypatch.setattr(sampler_module, "SamplingProfiler", Watched)
    name = "unguided"
    fresh.pipelines.pipe.unet.register_forward_pre_hook(look)
    with pytest.raises(ZeroDivisionError):  # a Stop is heard meanwhile
        sample(fresh, name, PROMPTS, SEEDS, 5, watch=lambda step, n_steps: n_steps / step)
    assert within == []
    for name in ("unguided", "guided", "tuned", "selective-20", "hybrid-50"):
        sample(fresh, name, PROMPTS, SEEDS, 5)
    assert (
        first == []
        and {("guided", 4), ("guided", 2), ("tuned", 2), ("tuned", 1), ("selective-20", 4)} <= met
    )


def test_a_share_of_less_than_half_a_step_is_no_guidance(sampler):
    assert sample(sampler, "hybrid-10", PROMPTS[:1], SEEDS[:1], 4).nfe == 4
    assert sample(sampler, "selective-95", PROMPTS[:1], SEEDS[:1], 4).nfe == 4


def test_selective_guidance_is_the_guided_base_s_until_it_ends(sampler):
    """On its first half, half-guided sampling takes the very steps of guided sampling."""
    latents_by_name = {}

    def states(name: str) -> list[torch.Tensor]:
        inputs = []
        hook = sampler.pipelines.pipe.unet.register_forward_pre_hook(
            lambda unet, arguments: inputs.append(arguments[0][:1].clone())
        )
        latents_by_name[name] = sample(sampler, name, PROMPTS[:1], SEEDS[:1], 4)
        hook.remove()
        return inputs

    guided, selective = states("guided"), states("selective-50")
    assert all(torch.equal(a, b) for a, b in zip(guided[:3], selective[:3], strict=True))
    assert not torch.equal(guided[3], selective[3]) and (
        latents_by_name["guided"].nfe,
        latents_by_name["selective-50"].nfe,
    ) == (8, 6)


@pytest.mark.parametrize(
    "name", ["best", "selective", "selective-0", "selective-100", "hybrid-", "guided-20"]
)
def test_an_unknown_contender_is_refused_with_the_allowed_ones(sampler, name):
    with pytest.raises(
        ValueError,
        match=f"contender: given '{name}'; allowed is unguided, guided, tuned, selective-N",
    ):
        sample(sampler, name, PROMPTS, SEEDS, STEPS)


def test_a_contender_s_name_overrides_the_arguments(sampler, samples_by_name):
    sampled = sample(sampler, "guided at 6", PROMPTS, SEEDS, STEPS)
    assert np.array_equal(
        sampled.images, sample(sampler, "guided", PROMPTS, SEEDS, STEPS, guidance=6.0).images
    )
    sampled = sample(sampler, "tuned at 0.5 in 2 steps", PROMPTS[:1], [0], STEPS)
    expected = sample(sampler, "tuned", PROMPTS[:1], [0], 2, adapter_scale=0.5)
    assert sampled.nfe == 2 and np.array_equal(sampled.images, expected.images)


def test_adapters_of_other_runs_are_compared_alone_and_together(
    sampler, samples_by_name, base, adapter, tmp_path
):
    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.metadata import load_metadata
    from nbs_lib.models.lora.saving import save_adapter

    unet = base.denoiser()
    for parameter in add_lora(unet, 4, 4.0, seed=7, targets="feedforward"):
        parameter.data += 0.03 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1)
        )
    save_adapter(tmp_path / "run" / "adapter", unet, load_metadata(adapter))
    other = f"{tmp_path}/run"
    alone, half = (sample(sampler, f"{other}{at}", PROMPTS, SEEDS, STEPS) for at in ("", " at 0.5"))
    both = sample(sampler, f"{adapter} + {other} at 0.5", PROMPTS, SEEDS, STEPS)
    assert alone.nfe == both.nfe == STEPS
    pipe = base.pipeline()
    pipe.load_lora_weights(
        str(adapter), weight_name="pytorch_lora_weights.safetensors", adapter_name="a"
    )
    pipe.load_lora_weights(
        f"{other}/adapter", weight_name="pytorch_lora_weights.safetensors", adapter_name="b"
    )
    for scales, ours in (((0.0, 1.0), alone), ((0.0, 0.5), half), ((1.0, 0.5), both)):
        pipe.set_adapters(["a", "b"], list(scales))
        noise = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        options = {
            "num_inference_steps": STEPS,
            "guidance_scale": 1,
            "generator": noise,
            "output_type": "np",
        }
        assert apart(ours.images, (pipe(PROMPTS, **options).images * 255).round()) <= 1
    same = sample(sampler, str(adapter), PROMPTS, SEEDS, STEPS)
    assert torch.equal(same.latents, samples_by_name["tuned"].latents), (
        "this run's own adapter by its folder"
    )
    assert torch.equal(
        sample(sampler, "guided", PROMPTS, SEEDS, STEPS).latents, samples_by_name["guided"].latents
    )


def test_another_pipeline_is_sampled_from_the_same_noise(sampler, samples_by_name, base, tmp_path):
    pipe = base.pipeline()
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.mul_(1.02)
    pipe.save_pretrained(tmp_path / "other one")
    ours = sample(sampler, f"pipeline {tmp_path}/other one at 3", PROMPTS[:1], [3], STEPS)
    options = {
        "num_inference_steps": STEPS,
        "guidance_scale": 3,
        "generator": [torch.Generator().manual_seed(3)],
    }
    assert ours.nfe == 2 * STEPS
    assert (
        apart(ours.images, (pipe(PROMPTS[:1], **options, output_type="np").images * 255).round())
        <= 1
    )
    with pytest.raises(BaseError, match="there is no such folder"):
        sample(sampler, "pipeline /nowhere/at/all", PROMPTS[:1], [0], 1)


@pytest.mark.parametrize("engine", ["compile", "deepspeed"])
def test_pictures_of_the_engines_agree(sampler, samples_by_name, engine):
    """To 2/255, tuned and guided; the engine's UNet is counted like any other."""
    for name in ("tuned", "guided"):
        on = sample(sampler, f"{name} on {engine}", PROMPTS, SEEDS, STEPS)
        assert (
            on.nfe == samples_by_name[name].nfe
            and apart(on.images, samples_by_name[name].images) <= 2
        )
    assert torch.equal(
        sample(sampler, "guided", PROMPTS, SEEDS, STEPS).latents, samples_by_name["guided"].latents
    )


def test_an_engine_that_predicts_something_else_is_refused(base, monkeypatch):
    from nbs_lib.compare.sampling import engines

    class Wrong(torch.nn.Module):
        def __init__(self, unet):
            super().__init__()
            self.unet, self.config, self.device, self.dtype = (
                unet,
                unet.config,
                unet.device,
                unet.dtype,
            )

        def forward(self, *args, **kwargs):
            [output] = self.unet(*args, **kwargs)
            return (output * 1.01,)

    monkeypatch.setattr(engines, "_deepspeed", Wrong)
    with pytest.raises(
        RuntimeError, match="engine 'deepspeed': its predictions are .* from eager's"
    ):
        engines.on_engine(base.denoiser(), "deepspeed", base)


def test_an_adapter_of_another_base_is_refused_with_both_named(sampler, base, adapter, tmp_path):
    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.metadata import load_metadata
    from nbs_lib.models.lora.saving import save_adapter

    unet = base.denoiser()
    add_lora(unet, 4, 4.0, seed=0)
    save_adapter(
        tmp_path, unet, load_metadata(adapter) | {"base_hash": "f" * 64, "base": "another"}
    )
    with pytest.raises(
        BaseError,
        match=f"'embedded' has hash {base.hash[:16]}.* on 'another' with hash ffffffffffffffff",
    ):
        sample(sampler, str(tmp_path), PROMPTS[:1], [0], 1)
    with pytest.raises(FileNotFoundError, match="there is no adapter in it"):
        sample(sampler, "outputs/nothing here", PROMPTS[:1], [0], 1)


def test_progress_is_reported_each_step_and_can_end_the_sampling(sampler, samples_by_name):
    calls = []
    sample(
        sampler,
        "guided",
        PROMPTS,
        SEEDS,
        2,
        watch=lambda step, n_steps: calls.append((step, n_steps)),
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)], "two batches of two steps"

    class EnoughError(Exception):
        pass

    def stop(step: int, n_steps: int):
        if step == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        sample(sampler, "tuned", PROMPTS, SEEDS, STEPS, watch=stop)
    assert torch.equal(
        sample(sampler, "unguided", PROMPTS, SEEDS, STEPS).latents,
        samples_by_name["unguided"].latents,
    )


@pytest.mark.parametrize("scheduler", DIFFUSION_SAMPLERS)
def test_any_scheduler_samples_as_the_stock_pipeline_does(sampler, base, scheduler):
    import diffusers

    ours = sample(sampler, "guided", PROMPTS[:1], [3], STEPS, scheduler=scheduler)
    pipe = base.pipeline()
    pipe.scheduler = base.scheduler(getattr(diffusers, scheduler))
    options = {
        "num_inference_steps": STEPS,
        "guidance_scale": W,
        "generator": [torch.Generator().manual_seed(3)],
    }
    assert (
        apart(ours.images, (pipe(PROMPTS[:1], **options, output_type="np").images * 255).round())
        <= 1
    )
    with pytest.raises(
        ValueError, match="scheduler: given 'Euler'; allowed is one of DDIMScheduler"
    ):
        sample(sampler, "guided", PROMPTS[:1], [0], 1, scheduler="Euler")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tunned", "given 'tunned'; allowed is unguided, guided, tuned"),
        ("tuned at 11", "λ = 11; allowed is -10 to 10"),
        ("guided at 0.5", "w = 0.5; allowed is 1 to 100"),
        ("unguided at 3", "unguided has no scale"),
        ("tuned on tensorrt", "engine 'tensorrt'; allowed is one of eager, compile, deepspeed"),
        ("tuned in 0 steps", "0 steps; allowed are 1 to 1000"),
        ("selective-0", "allowed is unguided"),
        ("a/b at 11 + c/d", "λ = 11"),
        ("a/b + nonsense", "allowed is unguided"),
        ("", "allowed is unguided"),
    ],
)
def test_a_wrong_contender_is_refused(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_contender(name)


def test_steps_and_engine_of_a_contender_in_either_order():
    one, other = (
        parse_contender("tuned at 0.5 in 4 steps on compile"),
        parse_contender("tuned at 5e-1 on compile in 4 steps"),
    )
    assert (
        (one.adapter_scale, one.steps, one.engine)
        == (other.adapter_scale, other.steps, other.engine)
        == (0.5, 4, "compile")
    )
    assert parse_contender("outputs/cat on mat at 0.5").folders == (("outputs/cat on mat", 0.5),)


def test_an_adapter_trained_again_is_loaded_again(sampler, base, adapter, tmp_path):
    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.metadata import load_metadata
    from nbs_lib.models.lora.saving import save_adapter

    images, n_loaded = [], []
    for seed in (1, 2):
        unet = base.denoiser()
        for parameter in add_lora(unet, 4, 4.0, seed=seed):
            parameter.data += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(seed)
            )
        save_adapter(tmp_path / "adapter", unet, load_metadata(adapter))
        images.append(sample(sampler, str(tmp_path), PROMPTS[:1], [0], STEPS).images)
        n_loaded.append(len(sampler.pipelines.adapters.denoiser.peft_config))
    assert apart(*images) > 5
    # the first training's weights have left memory
    assert n_loaded[0] == n_loaded[1]
    (tmp_path / "adapter" / "pytorch_lora_weights.safetensors").write_bytes(b"torn")
    with pytest.raises(
        ValueError, match="pytorch_lora_weights.safetensors has a header of .* train it again"
    ):
        sample(sampler, str(tmp_path), PROMPTS[:1], [0], 1)
