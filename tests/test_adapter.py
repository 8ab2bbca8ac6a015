import json

import pytest
import torch
from safetensors import safe_open

from nbs_lib.adapter import TARGETS, adapted, adapter_off, attach, read_facts, save_adapter, verify
from nbs_lib.models import find_base


def predict(unet):
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 40, 192, generator=generator)
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
    unet = base.unet()
    before = predict(unet)
    parameters = attach(unet, rank=4, alpha=4.0, seed=0)
    assert torch.equal(predict(unet), before)
    assert {id(p) for p in unet.parameters() if p.requires_grad} == {id(p) for p in parameters}
    assert all(p.dtype == torch.float32 for p in parameters)


def test_the_teacher_is_the_base_and_leaves_gradients_as_they_were(base):
    unet = base.unet()
    before = predict(unet)
    attach(unet, rank=4, alpha=8.0, seed=0)
    trained_like(unet)
    wanted = [p.requires_grad for p in unet.parameters()]
    tuned = predict(unet)
    assert not torch.allclose(tuned, before)
    with adapter_off(adapted(unet)):
        assert torch.equal(predict(unet), before)
    assert torch.equal(predict(unet), tuned)
    assert [p.requires_grad for p in unet.parameters()] == wanted


@pytest.mark.parametrize("alpha", [4.0, 16.0, 1.0])
def test_a_stock_loader_gets_the_strength_right_whatever_alpha_is(base, tmp_path, alpha):
    unet = base.unet()
    attach(unet, rank=4, alpha=alpha, seed=0)
    tuned = predict(trained_like(unet))
    facts = {"w_train": 3.0, "base_hash": base.hash}
    path = save_adapter(tmp_path, unet, facts)
    assert read_facts(tmp_path) == facts
    verify(tmp_path, unet, base)
    pipeline = base.pipeline()
    pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(predict(pipeline.unet), tuned, atol=1e-5, rtol=1e-5)
    with safe_open(path, "pt") as opened:
        keys, metadata = list(opened.keys()), opened.metadata()
    assert keys and all(key.startswith("unet.") for key in keys)
    assert json.loads(metadata["lora_adapter_metadata"])["unet.r"] == 4


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_every_method_on_every_preset_loads_the_stock_way(base, tmp_path, method, targets):
    unet = base.unet()
    before = predict(unet)
    attach(unet, 4, 8.0, 0, targets, method, dropout=0.1)
    torch.testing.assert_close(predict(unet), before, atol=1e-5, rtol=1e-5)
    tuned = predict(trained_like(unet.eval()))
    assert not torch.allclose(tuned, before, atol=1e-2)
    save_adapter(tmp_path, unet, {})
    verify(tmp_path, unet, base)
    pipeline = base.pipeline()
    pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(predict(pipeline.unet), tuned, atol=1e-4, rtol=1e-4)


def test_presets_are_on_the_layers_that_they_name(base):
    counts = {}
    for targets in TARGETS:
        unet = base.unet()
        attach(unet, 4, 4.0, 0, targets)
        counts[targets] = [name for name, module in unet.named_modules() if hasattr(module, "lora_A")]
    assert {name.rpartition(".")[2] for name in counts["attention"]} == {"to_q", "to_k", "to_v", "0"}
    assert set(counts["attention"]) < set(counts["feedforward"]) < set(counts["all"])
    assert any(".ff.net." in name for name in counts["feedforward"]) and "conv_in" in counts["all"]
    every = [name for name, module in base.unet().named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert counts["all"] == every


def test_two_adapters_load_together_each_with_its_own_scale(base, tmp_path):
    """As one for guidance and one for few steps would: what they add to the weights adds up."""
    deltas, names = [], ("guidance", "steps")
    for seed, (name, targets) in enumerate(zip(names, ("attention", "all"), strict=True)):
        unet = base.unet()
        attach(unet, 4, 8.0, seed, targets)
        trained_like(unet, seed)
        save_adapter(tmp_path / name, unet, {})
        deltas.append({n: m.get_delta_weight("default") for n, m in unet.named_modules() if hasattr(m, "get_delta_weight")})
    pipeline = base.pipeline()
    for name in names:
        pipeline.load_lora_weights(tmp_path / name, adapter_name=name)
    pipeline.set_adapters(list(names), [0.5, 2.0])
    by_hand = base.unet()
    with torch.no_grad():
        for delta, scale in zip(deltas, (0.5, 2.0), strict=True):
            for name, change in delta.items():
                by_hand.get_submodule(name).weight += scale * change
    torch.testing.assert_close(predict(pipeline.unet), predict(by_hand), atol=1e-4, rtol=1e-4)


def test_verify_refuses_a_file_of_another_strength(base, tmp_path):
    unet = base.unet()
    attach(unet, rank=4, alpha=4.0, seed=0)
    save_adapter(tmp_path, trained_like(unet), {})
    with pytest.raises(RuntimeError, match="does not load back"):
        verify(tmp_path, trained_like(unet, seed=4), base)


@pytest.mark.parametrize("kind", ["sd1", "sd2-v", "sdxl"])
def test_the_file_of_every_family_loads_back_the_stock_way(tiny_base, tmp_path, kind):
    base = find_base(str(tiny_base(kind, tmp_path / "base")))
    unet = base.unet()
    attach(unet, rank=2, alpha=6.0, seed=0)
    save_adapter(tmp_path, trained_like(unet), {})
    for lean in (False, True):
        assert verify(tmp_path, unet, base, lean) < 1e-4
    trained_like(unet, seed=4)
    for lean in (False, True):
        with pytest.raises(RuntimeError, match="does not load back"):
            verify(tmp_path, unet, base, lean)


def test_the_same_seed_attaches_the_same_adapter(base):
    first, again, other = (attach(base.unet(), 4, 4.0, seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_a_folder_without_an_adapter_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="2_train"):
        read_facts(tmp_path)
