import json

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file

from nbs_lib.compare.sampling.adapters import AdapterLoader
from nbs_lib.models import find_base
from nbs_lib.models.lora.checks import AdapterError
from nbs_lib.models.lora.layers import ADAPTER_NAME, TARGETS, add_lora, disable_lora, lora_layers
from nbs_lib.models.lora.metadata import LORA_FILE, METADATA_FILE, METADATA_KEY, load_metadata
from nbs_lib.models.lora.saving import save_adapter
from nbs_lib.models.lora.verification import verify_adapter


def predict(unet):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, 16, 16, generator=generator)
    context = torch.randn(2, 40, 192, generator=generator)
    with torch.no_grad():
        return unet(x, torch.tensor([10, 700]), context).sample


def trained_like(unet, seed=3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return unet


@pytest.fixture
def base():
    return find_base("embedded")


def test_a_new_adapter_changes_nothing_and_is_all_that_trains(base):
    unet = base.denoiser()
    before = predict(unet)
    parameters = add_lora(unet, rank=4, alpha=4.0, seed=0)
    assert torch.equal(predict(unet), before)
    assert {id(p) for p in unet.parameters() if p.requires_grad} == {id(p) for p in parameters}
    assert all(p.dtype == torch.float32 for p in parameters)


def test_disabling_lora_gives_the_base_and_keeps_requires_grad(base):
    unet = base.denoiser()
    before = predict(unet)
    add_lora(unet, rank=4, alpha=8.0, seed=0)
    trained_like(unet)
    requires_grad = [p.requires_grad for p in unet.parameters()]
    tuned = predict(unet)
    assert not torch.allclose(tuned, before)
    with disable_lora(lora_layers(unet)):
        assert torch.equal(predict(unet), before)
    assert torch.equal(predict(unet), tuned)
    assert [p.requires_grad for p in unet.parameters()] == requires_grad


@pytest.mark.parametrize("alpha", [4.0, 16.0, 1.0])
def test_a_stock_loader_applies_the_right_strength_for_any_alpha(base, tmp_path, alpha):
    unet = base.denoiser()
    add_lora(unet, rank=4, alpha=alpha, seed=0)
    tuned = predict(trained_like(unet))
    facts = {"w_train": 3.0, "base_hash": base.hash}
    path = save_adapter(tmp_path, unet, facts)
    assert load_metadata(tmp_path) == facts
    verify_adapter(tmp_path, unet, base)
    pipeline = base.pipeline()
    pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(predict(pipeline.unet), tuned, atol=1e-5, rtol=1e-5)
    with safe_open(path, "pt") as opened:
        keys, metadata = list(opened.keys()), opened.metadata()
    assert keys and all(key.startswith("unet.") for key in keys)
    assert json.loads(metadata["lora_adapter_metadata"])["unet.r"] == 4


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_every_method_on_every_preset_loads_in_diffusers(base, tmp_path, method, targets):
    unet = base.denoiser()
    before = predict(unet)
    add_lora(unet, 4, 8.0, 0, targets, method, dropout=0.1)
    torch.testing.assert_close(predict(unet), before, atol=1e-5, rtol=1e-5)
    tuned = predict(trained_like(unet.eval()))
    assert not torch.allclose(tuned, before, atol=1e-2)
    save_adapter(tmp_path, unet, {})
    verify_adapter(tmp_path, unet, base)
    pipeline = base.pipeline()
    pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(predict(pipeline.unet), tuned, atol=1e-4, rtol=1e-4)


def test_presets_select_layers(base):
    counts = {}
    for targets in TARGETS:
        unet = base.denoiser()
        add_lora(unet, 4, 4.0, 0, targets)
        counts[targets] = [
            name for name, module in unet.named_modules() if hasattr(module, "lora_A")
        ]
    assert {name.rpartition(".")[2] for name in counts["attention"]} == {
        "to_q",
        "to_k",
        "to_v",
        "0",
    }
    assert set(counts["attention"]) < set(counts["feedforward"]) < set(counts["all"])
    assert any(".ff.net." in name for name in counts["feedforward"]) and any(
        "resnets" in name for name in counts["all"]
    )
    every = {
        name
        for name, module in base.denoiser().named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    ends = {
        "conv_in",
        "conv_out",
        "time_embedding.linear_1",
        "time_embedding.linear_2",
        "up_blocks.0.upsamplers.0.conv",
    }
    assert every - set(counts["all"]) == ends  # which not all other programs load


def test_two_adapters_load_together_each_with_its_own_scale(base, tmp_path):
    """One for guidance and one for few steps: their changes of the weights add up."""
    deltas, names = [], ("guidance", "steps")
    for seed, (name, targets) in enumerate(zip(names, ("attention", "all"), strict=True)):
        unet = base.denoiser()
        add_lora(unet, 4, 8.0, seed, targets)
        trained_like(unet, seed)
        save_adapter(tmp_path / name, unet, {})
        deltas.append(
            {
                n: m.get_delta_weight("default")
                for n, m in unet.named_modules()
                if hasattr(m, "get_delta_weight")
            }
        )
    pipeline = base.pipeline()
    for name in names:
        pipeline.load_lora_weights(tmp_path / name, adapter_name=name)
    pipeline.set_adapters(list(names), [0.5, 2.0])
    by_hand = base.denoiser()
    with torch.no_grad():
        for delta, scale in zip(deltas, (0.5, 2.0), strict=True):
            for name, change in delta.items():
                by_hand.get_submodule(name).weight += scale * change
    torch.testing.assert_close(predict(pipeline.unet), predict(by_hand), atol=1e-4, rtol=1e-4)


def test_verification_refuses_other_weights(base, tmp_path):
    unet = base.denoiser()
    add_lora(unet, rank=4, alpha=4.0, seed=0)
    save_adapter(tmp_path, trained_like(unet), {})
    with pytest.raises(RuntimeError, match="does not load back"):
        verify_adapter(tmp_path, trained_like(unet, seed=4), base)


@pytest.mark.parametrize("kind", ["sd1", "sd2-v", "sdxl"])
def test_adapters_of_every_family_load_in_diffusers(tiny_base, tmp_path, kind):
    base = find_base(str(tiny_base(kind, tmp_path / "base")))
    unet = base.denoiser()
    add_lora(unet, rank=2, alpha=6.0, seed=0)
    save_adapter(tmp_path, trained_like(unet), {})
    for lean in (False, True):
        assert verify_adapter(tmp_path, unet, base, lean) < 1e-4
    trained_like(unet, seed=4)
    for lean in (False, True):
        with pytest.raises(RuntimeError, match="does not load back"):
            verify_adapter(tmp_path, unet, base, lean)


def test_a_seed_fixes_the_adapter(base):
    first, again, other = (add_lora(base.denoiser(), 4, 4.0, seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="2_train"):
        load_metadata(tmp_path)


@pytest.fixture(scope="module")
def small(tiny_base, tmp_path_factory) -> tuple:
    """A tiny base, its pipeline, weights and metadata of a valid adapter; for reading only."""
    base = find_base(str(tiny_base("sd1", tmp_path_factory.mktemp("small") / "base")))
    unet = base.denoiser()
    unet.add_adapter(
        LoraConfig(r=2, lora_alpha=4, target_modules=["conv_in", "attn1.to_q"]), ADAPTER_NAME
    )
    facts = {"base": "tiny", "base_hash": base.hash, "w_train": 3.0}
    with safe_open(
        save_adapter(tmp_path_factory.mktemp("adapter"), trained_like(unet), facts), "pt"
    ) as opened:
        return (
            base,
            base.pipeline(),
            {key: opened.get_tensor(key) for key in opened.keys()},
            opened.metadata(),
        )


def load_into(small: tuple, folder, weights: dict, metadata: dict):
    """Load an adapter into a pipeline as sampling and export do."""
    base, pipe, *_ = small
    save_file(weights, folder / LORA_FILE, metadata)
    try:
        AdapterLoader(pipe, base).load(folder)
    finally:
        pipe.unload_lora_weights()


UP = "unet.conv_in.lora_B.weight"
DOWN = "unet.conv_in.lora_A.weight"
WRONG_WEIGHTS = {
    "reaches 1e\\+30": {UP: lambda weight: weight.index_fill(0, torch.tensor([0]), 1e30)},
    "not numbers": {UP: lambda weight: weight.index_fill(0, torch.tensor([0]), float("nan"))},
    "conv_in.lora_B.weight is not there": {UP: None},
    "conv_in.lora_B.weight is .32, 2.": {UP: lambda weight: weight[..., 0, 0].clone()},
    "conv_in.lora_A.weight is .2, 5, 3, 3.": {
        DOWN: lambda weight: weight[:, [0, 0, 1, 2, 3]].contiguous()
    },
    "conv_in has rank 0": {DOWN: lambda weight: weight[:0].clone()},
    "type I64": {UP: lambda weight: weight.long()},
    "target_modules and its weights differ": {UP: None, DOWN: None},
}


def test_a_valid_adapter_of_any_type_is_loaded(small, tmp_path):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        load_into(
            small, tmp_path, {name: weight.to(dtype) for name, weight in small[2].items()}, small[3]
        )


@pytest.mark.parametrize("message", WRONG_WEIGHTS)
def test_weights_that_do_not_fit_are_named_before_they_are_loaded(small, tmp_path, message):
    weights = dict(small[2])
    for name, change in WRONG_WEIGHTS[message].items():
        weight = weights.pop(name)
        if change:
            weights[name] = change(weight)
    with pytest.raises(AdapterError, match=message):
        load_into(small, tmp_path, weights, small[3])


@pytest.mark.parametrize(
    "name",
    [
        "unet.conv_two.lora_A.weight",
        "text_encoder.layers.0.lora_A.weight",
        "lora_unet_conv_in.alpha",
    ],
)
def test_weights_of_an_unknown_layer_are_named(small, tmp_path, name):
    with pytest.raises(AdapterError, match=name):
        load_into(small, tmp_path, small[2] | {name: torch.zeros(2, 4, 3, 3)}, small[3])


WRONG_SETTINGS = [
    ("target_modules", "(a+)+$"),
    ("target_modules", ["(.*)*x", "conv_in"]),
    ("target_modules", None),
    ("target_modules", ["conv_in"]),
    ("rank_pattern", {"(a+)+$": 2}),
    ("rank_pattern", {"conv_in": 3}),
    ("rank_pattern", {"conv_in": "2"}),
    ("alpha_pattern", {"conv_in": float("inf")}),
    ("alpha_pattern", [1]),
    ("r", "2"),
    ("r", 10**9),
    ("lora_alpha", 1e30),
    ("lora_alpha", None),
    ("lora_dropout", 7),
    ("use_dora", True),
    ("use_rslora", "yes"),
    ("modules_to_save", ["conv_out"]),
    ("exclude_modules", "(a+)+$"),
    ("megatron_core", "os"),
    ("layer_replication", [[0, 10**9]]),
    ("unheard_of", 1),
]


@pytest.mark.parametrize("setting, value", WRONG_SETTINGS)
def test_unsupported_settings_are_refused_before_peft_reads_them(small, tmp_path, setting, value):
    """peft runs a text in target_modules as a regular expression, for as long as it takes."""
    settings = json.loads(small[3]["lora_adapter_metadata"]) | {f"unet.{setting}": value}
    with pytest.raises(AdapterError):
        load_into(
            small, tmp_path, small[2], small[3] | {"lora_adapter_metadata": json.dumps(settings)}
        )


WRONG_METADATA = [
    ("w_train", "3"),
    ("w_train", None),
    ("w_train", float("nan")),
    ("base_hash", 7),
    ("negative", ["blurry"]),
    ("negative", "\ud800"),
    ("objective", "world peace"),
    ("resolution", -64),
    ("sampling", {"scheduler": "StableDiffusionPipeline"}),
    ("sampling", {"steps": 10**9}),
    ("sampling", 4),
    ("train", {"alpha": "8"}),
]


@pytest.mark.parametrize("name, value", WRONG_METADATA)
def test_metadata_that_no_training_writes_is_refused(small, tmp_path, name, value):
    """It may be in an adapter's file or beside a whole model."""
    facts = json.loads(small[3][METADATA_KEY]) | {name: value}
    with pytest.raises(AdapterError):
        load_into(small, tmp_path, small[2], small[3] | {METADATA_KEY: json.dumps(facts)})
    (tmp_path / METADATA_FILE).write_text(json.dumps(facts))
    with pytest.raises(AdapterError):
        load_metadata(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff" * 99, (10**9).to_bytes(8, "little") + b"{}", b"[" * 10**5]
)
def test_a_damaged_file_is_refused_with_a_short_error(tmp_path, data):
    for name in (LORA_FILE, METADATA_FILE):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AdapterError) as refused:
            load_metadata(tmp_path)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 1000
