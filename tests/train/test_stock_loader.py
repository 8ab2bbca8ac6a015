"""The cases of diffusers' own tests of its LoRA loaders, on adapters of real trainings."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from nbs_lib.config import Train
from nbs_lib.models import EMBEDDED, find_base
from nbs_lib.models.lora.metadata import LORA_FILE

pytestmark = pytest.mark.slow
SCALED = {"cross_attention_kwargs": {"scale": 0.5}}
CLOSE = {"atol": 1e-3, "rtol": 1e-3}


@pytest.fixture(scope="module")
def adapters(new_run, train) -> list[Path]:
    """Two adapters of six steps each: on attention, and on all layers that other programs load."""
    folders = []
    for seed, targets in enumerate(("attention", "all")):
        run = new_run()
        options = {
            "steps": 6,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "lr_warmup_steps": 1,
            "validation_examples": 0,
            "validation_steps": 0,
            "rank": 4,
            "alpha": 8.0,
        }
        train(
            Train(
                str(run.folder),
                **options,
                target_modules=targets,
                seed=seed,
                deepspeed=False,
                num_processes=1,
                mixed_precision="fp32",
            )
        )
        folders.append(run.adapter)
    return folders


@pytest.fixture(scope="module")
def loaded() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(loaded, one_thread) -> Iterator[StableDiffusionPipeline]:
    """A stock pipeline of the base without an adapter."""
    yield loaded
    loaded.unload_lora_weights()


def sample(pipe: StableDiffusionPipeline, **options) -> torch.Tensor:
    """Return the latents of a picture, always from the same noise."""
    options = {"guidance_scale": 1, "num_inference_steps": 2, "output_type": "latent"} | options
    return pipe(
        "A person holding a cat", generator=torch.Generator().manual_seed(0), **options
    ).images


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, **CLOSE)


def layers(pipe: StableDiffusionPipeline) -> set[str]:
    return {
        name for name, module in pipe.unet.named_modules() if isinstance(module, BaseTunerLayer)
    }


@pytest.fixture(scope="module")
def plain(loaded) -> torch.Tensor:
    return sample(loaded)


def test_every_key_is_one_of_a_lora_of_the_unet(adapters):
    for folder in adapters:
        keys = load_file(folder / LORA_FILE).keys()
        assert keys and all(key.startswith("unet.") and "lora" in key for key in keys)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, LCMScheduler])
def test_a_loaded_adapter_changes_pictures_and_an_unloaded_one_does_not(pipe, adapters, scheduler):
    was = pipe.scheduler
    pipe.scheduler = scheduler.from_config(was.config)
    before = sample(pipe)
    for folder in adapters:
        pipe.load_lora_weights(folder)
        keys = load_file(folder / LORA_FILE)
        assert layers(pipe) == {key.removeprefix("unet.").partition(".lora_")[0] for key in keys}
        assert not same(sample(pipe), before)
        pipe.unload_lora_weights()
        assert not layers(pipe) and torch.equal(sample(pipe), before)
    pipe.scheduler = was


def test_all_arguments_of_load_lora_weights_load_the_same(pipe, adapters):
    folder = adapters[1]
    pipe.load_lora_weights(folder)
    expected = sample(pipe)
    loaders = [
        ((folder / LORA_FILE,), {}),
        ((folder,), {"weight_name": LORA_FILE}),
        ((folder,), {"low_cpu_mem_usage": True}),
        ((folder,), {"low_cpu_mem_usage": False}),
        ((load_file(folder / LORA_FILE),), {}),
    ]
    for arguments, options in loaders:
        pipe.unload_lora_weights()
        pipe.load_lora_weights(*arguments, **options)
        assert not any(parameter.is_meta for parameter in pipe.unet.parameters())
        torch.testing.assert_close(sample(pipe), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_scale_zero_is_the_base_and_both_scales_agree(pipe, adapters, plain, which):
    pipe.load_lora_weights(adapters[which], adapter_name="a")
    full, half = sample(pipe), sample(pipe, **SCALED)
    assert same(sample(pipe, cross_attention_kwargs={"scale": 0.0}), plain)
    assert not same(half, full) and not same(half, plain)
    pipe.set_adapters("a", 0.5)
    assert same(sample(pipe), half)
    pipe.set_adapters("a", 0.0)
    assert same(sample(pipe), plain)
    pipe.set_adapters("a")
    assert same(sample(pipe), full)


def test_scales_by_blocks(pipe, adapters, plain):
    pipe.load_lora_weights(adapters[0], adapter_name="a")
    drawings = []
    for scales in (
        {"down": 1.0},
        {"mid": 1.0},
        {"up": 1.0},
        {"down": {"block_0": 0.5}, "up": {"block_1": [0.2, 0.4]}},
    ):
        pipe.set_adapters("a", {"unet": {"down": 0.0, "mid": 0.0, "up": 0.0} | scales})
        drawings.append(sample(pipe))
    assert not any(same(a, b) for i, a in enumerate(drawings) for b in [plain, *drawings[:i]])
    pipe.set_adapters("a", {"unet": {"down": 0.0, "mid": 0.0, "up": 0.0}})
    assert same(sample(pipe), plain)


def test_an_adapter_is_switched_off_and_on(pipe, adapters, plain):
    pipe.load_lora_weights(adapters[1])
    tuned = sample(pipe)
    pipe.disable_lora()
    assert same(sample(pipe), plain)
    pipe.enable_lora()
    assert torch.equal(sample(pipe), tuned)


@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_a_fused_adapter_samples_like_a_loaded_one(pipe, adapters, plain, scale):
    pipe.load_lora_weights(adapters[1], adapter_name="a")
    tuned = sample(pipe, cross_attention_kwargs={"scale": scale})
    pipe.fuse_lora(components=["unet"], adapter_names=["a"], lora_scale=scale, safe_fusing=True)
    assert pipe.num_fused_loras == 1 and layers(pipe)
    assert same(sample(pipe), tuned) and not same(sample(pipe), plain)
    pipe.unfuse_lora(components=["unet"])
    assert pipe.num_fused_loras == 0
    pipe.unload_lora_weights()
    assert same(sample(pipe), plain)


def test_a_fused_pipeline_is_saved_and_loaded(adapters, tmp_path, one_thread):
    pipe = find_base("embedded").pipeline()
    pipe.load_lora_weights(adapters[1])
    tuned = sample(pipe)
    pipe.fuse_lora(components=["unet"])
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    assert same(
        sample(StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)), tuned
    )


def test_two_adapters_are_named_weighted_and_deleted(pipe, adapters, plain):
    alone = []
    for name, folder in zip("ab", adapters, strict=True):
        pipe.load_lora_weights(folder, adapter_name=name)
        pipe.set_adapters(name)
        alone.append(sample(pipe))
    assert pipe.get_list_adapters() == {"unet": ["a", "b"]} and pipe.get_active_adapters() == ["b"]
    pipe.set_adapters(["a", "b"])
    assert pipe.get_active_adapters() == ["a", "b"]
    mixed = sample(pipe)
    pipe.set_adapters(["a", "b"], [0.5, 0.6])
    weighted = sample(pipe)
    drawings = [plain, *alone, mixed, weighted]
    assert not any(same(a, b) for i, a in enumerate(drawings) for b in drawings[:i])
    for weights, expected in (([1.0, 0.0], alone[0]), ([0.0, 1.0], alone[1]), ([0.0, 0.0], plain)):
        pipe.set_adapters(["a", "b"], weights)
        assert same(sample(pipe), expected)
    with pytest.raises(ValueError):
        pipe.set_adapters(["a", "b"], [0.5])
    pipe.set_adapters(["a", "b"])
    pipe.delete_adapters("a")
    assert pipe.get_list_adapters() == {"unet": ["b"]} and same(sample(pipe), alone[1])
    pipe.delete_adapters("b")
    assert same(sample(pipe), plain)


def test_two_adapters_are_fused_together(pipe, adapters):
    for name, folder in zip("ab", adapters, strict=True):
        pipe.load_lora_weights(folder, adapter_name=name)
    pipe.set_adapters(["a", "b"], [0.5, 0.6])
    weighted = sample(pipe)
    pipe.fuse_lora(components=["unet"], adapter_names=["a", "b"])
    assert pipe.num_fused_loras == 2 and same(sample(pipe), weighted)
    pipe.unfuse_lora(components=["unet"])
    assert same(sample(pipe), weighted)


@pytest.mark.parametrize("which", [0, 1])
def test_saved_by_diffusers_it_loads_again(pipe, adapters, tmp_path, which):
    pipe.load_lora_weights(adapters[which])
    tuned, weights = sample(pipe), get_peft_model_state_dict(pipe.unet, adapter_name="default_0")
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=weights)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path)
    assert load_file(tmp_path / LORA_FILE).keys() == load_file(adapters[which] / LORA_FILE).keys()
    assert same(sample(pipe), tuned)


def test_hotswap_replaces_a_loaded_adapter(pipe, adapters, tmp_path):
    """A hotswap, which keeps compiled models."""
    pipe.load_lora_weights(adapters[1])
    other = {
        key: -0.5 * value if "lora_B" in key else value
        for key, value in load_file(adapters[1] / LORA_FILE).items()
    }
    pipe.unload_lora_weights()
    pipe.load_lora_weights(other)
    expected = sample(pipe)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(adapters[1], adapter_name="a")
    pipe.load_lora_weights(other, adapter_name="a", hotswap=True)
    assert same(sample(pipe), expected)


def test_half_precision_samples_nearly_the_same(pipe, adapters, plain):
    pipe.load_lora_weights(adapters[1])
    tuned = sample(pipe)
    half = find_base("embedded").pipeline(torch.bfloat16)
    half.load_lora_weights(adapters[1])
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.unet.parameters())
    apart, changed = ((a.float() - tuned).norm() for a in (sample(half), plain))
    assert apart < 0.3 * changed


def test_missing_and_unknown_weights_are_logged(pipe, adapters, caplog):
    """diffusers loads the rest; who looks at its log sees it."""
    import logging

    weights = load_file(adapters[0] / LORA_FILE)
    first = sorted(key for key in weights if "lora_A" in key)[0]
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    pipe.load_lora_weights({key: value for key, value in weights.items() if key != first})
    assert first.removeprefix("unet.") in caplog.text.replace(".default_0", "")
    pipe.unload_lora_weights()
    pipe.load_lora_weights(weights | {first + ".more": torch.ones(1)})
    logger.removeHandler(caplog.handler)
    assert ".more" in caplog.text
