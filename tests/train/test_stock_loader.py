"""What users of diffusers do with a LoRA, on adapters of real trainings: the cases of diffusers' own tests of its loaders."""

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
from nbs_lib.models.lora import LORA_FILE

pytestmark = pytest.mark.slow
SCALED = {"cross_attention_kwargs": {"scale": 0.5}}
CLOSE = {"atol": 1e-3, "rtol": 1e-3}


@pytest.fixture(scope="module")
def adapters(new_run, train) -> list[Path]:
    """Two adapters of six steps each: one on the layers of attention, one on all that other programs load."""
    folders = []
    for seed, targets in enumerate(("attention", "all")):
        run = new_run()
        how = {
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
                **how,
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


def drawn(pipe: StableDiffusionPipeline, **how) -> torch.Tensor:
    """Latents of a picture, always from the same noise."""
    how = {"guidance_scale": 1, "num_inference_steps": 2, "output_type": "latent"} | how
    return pipe("A person holding a cat", generator=torch.Generator().manual_seed(0), **how).images


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, **CLOSE)


def layers(pipe: StableDiffusionPipeline) -> set[str]:
    return {
        name for name, module in pipe.unet.named_modules() if isinstance(module, BaseTunerLayer)
    }


@pytest.fixture(scope="module")
def plain(loaded) -> torch.Tensor:
    return drawn(loaded)


def test_every_key_is_one_of_a_lora_of_the_unet(adapters):
    for folder in adapters:
        keys = load_file(folder / LORA_FILE).keys()
        assert keys and all(key.startswith("unet.") and "lora" in key for key in keys)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, LCMScheduler])
def test_a_loaded_adapter_changes_pictures_and_an_unloaded_one_does_not(pipe, adapters, scheduler):
    was = pipe.scheduler
    pipe.scheduler = scheduler.from_config(was.config)
    before = drawn(pipe)
    for folder in adapters:
        pipe.load_lora_weights(folder)
        keys = load_file(folder / LORA_FILE)
        assert layers(pipe) == {key.removeprefix("unet.").partition(".lora_")[0] for key in keys}
        assert not same(drawn(pipe), before)
        pipe.unload_lora_weights()
        assert not layers(pipe) and torch.equal(drawn(pipe), before)
    pipe.scheduler = was


def test_every_way_to_load_loads_the_same(pipe, adapters):
    folder = adapters[1]
    pipe.load_lora_weights(folder)
    wanted = drawn(pipe)
    ways = [
        ((folder / LORA_FILE,), {}),
        ((folder,), {"weight_name": LORA_FILE}),
        ((folder,), {"low_cpu_mem_usage": True}),
        ((folder,), {"low_cpu_mem_usage": False}),
        ((load_file(folder / LORA_FILE),), {}),
    ]
    for given, how in ways:
        pipe.unload_lora_weights()
        pipe.load_lora_weights(*given, **how)
        assert not any(parameter.is_meta for parameter in pipe.unet.parameters())
        torch.testing.assert_close(drawn(pipe), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_a_scale_of_nothing_is_the_base_and_both_ways_to_scale_agree(pipe, adapters, plain, which):
    pipe.load_lora_weights(adapters[which], adapter_name="a")
    full, half = drawn(pipe), drawn(pipe, **SCALED)
    assert same(drawn(pipe, cross_attention_kwargs={"scale": 0.0}), plain)
    assert not same(half, full) and not same(half, plain)
    pipe.set_adapters("a", 0.5)
    assert same(drawn(pipe), half)
    pipe.set_adapters("a", 0.0)
    assert same(drawn(pipe), plain)
    pipe.set_adapters("a")
    assert same(drawn(pipe), full)


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
        drawings.append(drawn(pipe))
    assert not any(same(a, b) for i, a in enumerate(drawings) for b in [plain, *drawings[:i]])
    pipe.set_adapters("a", {"unet": {"down": 0.0, "mid": 0.0, "up": 0.0}})
    assert same(drawn(pipe), plain)


def test_an_adapter_is_switched_off_and_on(pipe, adapters, plain):
    pipe.load_lora_weights(adapters[1])
    tuned = drawn(pipe)
    pipe.disable_lora()
    assert same(drawn(pipe), plain)
    pipe.enable_lora()
    assert torch.equal(drawn(pipe), tuned)


@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_a_fused_adapter_draws_what_a_loaded_one_draws(pipe, adapters, plain, scale):
    pipe.load_lora_weights(adapters[1], adapter_name="a")
    tuned = drawn(pipe, cross_attention_kwargs={"scale": scale})
    pipe.fuse_lora(components=["unet"], adapter_names=["a"], lora_scale=scale, safe_fusing=True)
    assert pipe.num_fused_loras == 1 and layers(pipe)
    assert same(drawn(pipe), tuned) and not same(drawn(pipe), plain)
    pipe.unfuse_lora(components=["unet"])
    assert pipe.num_fused_loras == 0
    pipe.unload_lora_weights()
    assert same(drawn(pipe), plain)


def test_a_fused_pipeline_is_saved_and_loaded(adapters, tmp_path, one_thread):
    pipe = find_base("embedded").pipeline()
    pipe.load_lora_weights(adapters[1])
    tuned = drawn(pipe)
    pipe.fuse_lora(components=["unet"])
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    assert same(
        drawn(StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)), tuned
    )


def test_two_adapters_are_named_weighted_and_deleted(pipe, adapters, plain):
    alone = []
    for name, folder in zip("ab", adapters, strict=True):
        pipe.load_lora_weights(folder, adapter_name=name)
        pipe.set_adapters(name)
        alone.append(drawn(pipe))
    assert pipe.get_list_adapters() == {"unet": ["a", "b"]} and pipe.get_active_adapters() == ["b"]
    pipe.set_adapters(["a", "b"])
    assert pipe.get_active_adapters() == ["a", "b"]
    mixed = drawn(pipe)
    pipe.set_adapters(["a", "b"], [0.5, 0.6])
    weighted = drawn(pipe)
    drawings = [plain, *alone, mixed, weighted]
    assert not any(same(a, b) for i, a in enumerate(drawings) for b in drawings[:i])
    for weights, wanted in (([1.0, 0.0], alone[0]), ([0.0, 1.0], alone[1]), ([0.0, 0.0], plain)):
        pipe.set_adapters(["a", "b"], weights)
        assert same(drawn(pipe), wanted)
    with pytest.raises(ValueError):
        pipe.set_adapters(["a", "b"], [0.5])
    pipe.set_adapters(["a", "b"])
    pipe.delete_adapters("a")
    assert pipe.get_list_adapters() == {"unet": ["b"]} and same(drawn(pipe), alone[1])
    pipe.delete_adapters("b")
    assert same(drawn(pipe), plain)


def test_two_adapters_are_fused_together(pipe, adapters):
    for name, folder in zip("ab", adapters, strict=True):
        pipe.load_lora_weights(folder, adapter_name=name)
    pipe.set_adapters(["a", "b"], [0.5, 0.6])
    weighted = drawn(pipe)
    pipe.fuse_lora(components=["unet"], adapter_names=["a", "b"])
    assert pipe.num_fused_loras == 2 and same(drawn(pipe), weighted)
    pipe.unfuse_lora(components=["unet"])
    assert same(drawn(pipe), weighted)


@pytest.mark.parametrize("which", [0, 1])
def test_what_diffusers_saves_of_it_loads_again(pipe, adapters, tmp_path, which):
    pipe.load_lora_weights(adapters[which])
    tuned, weights = drawn(pipe), get_peft_model_state_dict(pipe.unet, adapter_name="default_0")
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=weights)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path)
    assert load_file(tmp_path / LORA_FILE).keys() == load_file(adapters[which] / LORA_FILE).keys()
    assert same(drawn(pipe), tuned)


def test_an_adapter_takes_the_place_of_another_while_it_is_loaded(pipe, adapters, tmp_path):
    """A hotswap, which keeps compiled models."""
    pipe.load_lora_weights(adapters[1])
    other = {
        key: -0.5 * value if "lora_B" in key else value
        for key, value in load_file(adapters[1] / LORA_FILE).items()
    }
    pipe.unload_lora_weights()
    pipe.load_lora_weights(other)
    wanted = drawn(pipe)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(adapters[1], adapter_name="a")
    pipe.load_lora_weights(other, adapter_name="a", hotswap=True)
    assert same(drawn(pipe), wanted)


def test_half_precision_draws_nearly_the_same(pipe, adapters, plain):
    pipe.load_lora_weights(adapters[1])
    tuned = drawn(pipe)
    half = find_base("embedded").pipeline(torch.bfloat16)
    half.load_lora_weights(adapters[1])
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.unet.parameters())
    apart, changed = ((a.float() - tuned).norm() for a in (drawn(half), plain))
    assert apart < 0.3 * changed


def test_a_weight_that_is_missing_or_unknown_is_said(pipe, adapters, caplog):
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
