"""A vision model of a local folder: a DINOv2 of random weights, saved as its hub has it."""

import json

import numpy as np
import pytest
import torch
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from nbs_lib.compare.metrics.vision import VisionModelError, load_vision_model

SIDE = 28


@pytest.fixture
def folder(tmp_path):
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=SIDE,
        patch_size=14,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(config).save_pretrained(tmp_path)
    size = {"height": SIDE, "width": SIDE}
    BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(tmp_path)
    return tmp_path


def noise(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 48, 3), dtype=np.uint8)


def test_features_are_the_model_s_own_on_the_unit_sphere(folder, capfd):
    capfd.readouterr()
    vision = load_vision_model(str(folder))
    assert "Loading" not in capfd.readouterr().err
    features = vision.image_features(noise())
    assert features.shape == (3, 16) and not vision.model.training
    assert features.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    stock = Dinov2Model.from_pretrained(folder)
    processor = BitImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        pooled = stock(**processor(list(noise()), return_tensors="pt")).pooler_output
    expected = torch.nn.functional.normalize(pooled, dim=-1)
    # attention in another order of operations
    assert torch.allclose(features, expected, atol=1e-5)
    assert torch.allclose(vision.image_features(noise()[:1]), features[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized weights"),
        ({"model_type": "nothing", "auto_map": {"AutoModel": "theirs.Model"}}, "does not load"),
        ({"num_hidden_layers": 3}, "it lacks .* weights, for example"),
        ({"hidden_size": 32}, "does not load"),
    ],
)
def test_settings_that_do_not_fit_or_ask_for_code_are_refused(folder, changed, message):
    (folder / "theirs.py").write_text("raise SystemExit('executed')")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changed))
    with pytest.raises(VisionModelError, match=message):
        load_vision_model(str(folder))


def test_weights_must_be_safetensors_that_are_whole(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(VisionModelError, match="it does not load"):
        load_vision_model(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(VisionModelError, match="no weights as safetensors, and pickled ones are"):
        load_vision_model(str(folder))
    # nothing answers here, and the sentence says what to do
    with pytest.raises(VisionModelError, match="features 'nobody/nothing': it is not to be had"):
        load_vision_model("nobody/nothing")
    with pytest.raises(VisionModelError, match="there is no such folder; give the folder or"):
        load_vision_model("nowhere/at/all")


def test_a_model_of_text_is_refused_before_any_picture_is_sampled(tmp_path):
    from nbs_lib.models import EMBEDDED

    with pytest.raises(VisionModelError, match=r"features '.*': it "):
        load_vision_model(str(EMBEDDED / "text_encoder"))
