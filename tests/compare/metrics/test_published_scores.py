"""PickScore, HPS v2.1, CMMD and FD-DINOv2: numbers by hand, and tiny models of random weights."""

import json
import re
from math import exp, log

import numpy as np
import pytest
import torch
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
)

from nbs_lib.compare import compare, summary
from nbs_lib.compare.metrics.clip import ClipError
from nbs_lib.compare.metrics.confidence import set_interval
from nbs_lib.compare.metrics.image_metrics import cmmd, fid, joint_coordinates
from nbs_lib.compare.metrics.vision import VisionModelError
from nbs_lib.compare.published_scores import load_scores, measure_published_scores
from nbs_lib.compare.report.summary import numbers_table
from nbs_lib.compare.sampling.sample_cache import CachedSamples
from nbs_lib.config import Compare
from nbs_lib.models import EMBEDDED

PROMPTS = ["A cat", "A dog", "A bus", "A boy is watching TV", "A road"]
SIDE = 128


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP as PickScore's: the embedded one with the processor and the scale of a real one."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    clip = CLIPModel.from_pretrained(EMBEDDED / "clip")
    clip.logit_scale.data.fill_(log(50))
    clip.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((EMBEDDED / "clip" / name).read_bytes())
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "dino"
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **sizes)).save_pretrained(folder)
    size = {"height": 28, "width": 28}
    BitImageProcessorPil(size={"shortest_edge": 28}, crop_size=size).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def samples() -> dict[str, CachedSamples]:
    generator = np.random.default_rng(0)
    shape = (len(PROMPTS), SIDE, SIDE, 3)
    return {
        name: CachedSamples(generator.integers(0, high, shape, np.uint8), torch.zeros(1), [])
        for name, high in (("unguided", 100), ("guided", 200), ("tuned", 255))
    }


def test_cmmd_by_hand():
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    # |x − y|² = 2, and 2 / (2 · 10²) = 0.01
    assert cmmd(x, y) == pytest.approx(1000 * (2 - 2 * exp(-0.01)))
    assert cmmd(x, x) == 0
    # the mean over pairs of a set has each vector's pair with itself
    both = torch.cat([x, y])
    half = (1 + exp(-0.01)) / 2
    assert cmmd(both, x) == pytest.approx(1000 * (half + 1 - 2 * half))
    near = torch.nn.functional.normalize(torch.tensor([[1.0, 1e-3]]), dim=-1)
    assert cmmd(x, near) == pytest.approx(1000 * 2 * (1 - exp(-1e-6 / 200)), rel=1e-3)


def test_coordinates_in_the_common_space_keep_the_frechet_distance():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 40, generator=generator) + shift for shift in (0, 0.5))
    small = joint_coordinates(a, b)
    assert small[0].shape == small[1].shape == (6, 12)
    assert fid(*small) == pytest.approx(fid(a, b), rel=1e-6)
    assert torch.cdist(*small) == pytest.approx(torch.cdist(a.double(), b.double()))
    assert joint_coordinates(a[:, :5], b[:, :5])[0].shape == (6, 5), "nothing to save"


def test_the_interval_of_a_distance_is_over_prompts():
    values = np.array([1.0, 1.0, 9.0, 9.0])

    def spread(rows):
        return float(values[rows].max() - values[rows].min())

    two = set_interval(spread, ["a", "a", "b", "b"])
    # half of the resamples have one prompt alone: 0 or 8, around a mean of about 4, moved to 8
    assert two["value"] == 8 and two["low"] < 8 < two["high"]
    assert two["high"] - two["low"] == 8
    assert set_interval(spread, ["a"] * 4) == {"value": 8, "low": None, "high": None}


def test_preference_scores_are_those_of_the_stock_model(samples, clip_folder):
    models = load_scores({"pickscore": clip_folder, "hpsv2.1": clip_folder})
    rows, scores = measure_published_scores(models, samples, PROMPTS, None)
    stock = CLIPModel.from_pretrained(clip_folder)
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    from transformers import CLIPTokenizer

    tokens = CLIPTokenizer.from_pretrained(clip_folder)(
        PROMPTS, padding="max_length", max_length=stock.config.text_config.max_position_embeddings,
        return_tensors="pt",
    )  # fmt: skip
    pixels = processor(list(samples["tuned"].images), return_tensors="pt").pixel_values
    with torch.no_grad():
        logits = stock(tokens.input_ids, pixels, tokens.attention_mask).logits_per_image.diag()
    tuned = rows["tuned"]
    # the model's own logits are what its authors call the score
    assert tuned["pickscore"]["value"] == pytest.approx(float(logits.mean()), abs=1e-3)
    assert tuned["hpsv2.1"]["value"] == pytest.approx(2 * float(logits.mean()), abs=1e-3)
    for score in tuned.values():
        assert score["low"] < score["value"] < score["high"] and score["count"] == 5
    assert scores["pickscore"]["of"] is None and scores["pickscore"]["better"] == "higher"
    assert scores["hpsv2.1"]["model"] == clip_folder


def test_set_scores_are_distances_from_the_reference_set(samples, clip_folder, dino_folder):
    models = load_scores({"cmmd": clip_folder, "fd_dinov2": dino_folder})
    rows, scores = measure_published_scores(models, samples, PROMPTS, None)
    assert scores["cmmd"]["of"] == "guided" and rows["guided"] == dict.fromkeys(models)
    features = [models["cmmd"].image_features(samples[name].images) for name in ("tuned", "guided")]
    assert rows["tuned"]["cmmd"]["value"] == pytest.approx(cmmd(*features))
    stock = Dinov2Model.from_pretrained(dino_folder)
    processor = BitImageProcessorPil.from_pretrained(dino_folder)
    with torch.no_grad():
        pooled = [
            stock(**processor(list(samples[name].images), return_tensors="pt")).pooler_output
            for name in ("tuned", "guided")
        ]
    assert rows["tuned"]["fd_dinov2"]["value"] == pytest.approx(fid(*pooled), rel=1e-3)
    for score in rows["tuned"].values():
        assert score["low"] < score["value"] < score["high"] and score["count"] == 5
    # the data's own pictures, if there are some
    of_data, facts = measure_published_scores(models, samples, PROMPTS, samples["tuned"].images)
    assert facts["fd_dinov2"]["of"] == "the data"
    assert of_data["tuned"]["cmmd"]["value"] == 0 and of_data["guided"]["cmmd"]["value"] > 0
    few = {name: CachedSamples(row.images[:3], row.latents, []) for name, row in samples.items()}
    assert measure_published_scores(models, few, PROMPTS[:3], None)[0]["tuned"]["cmmd"] is None


def test_a_model_that_does_not_fit_is_refused_by_its_score(clip_folder, dino_folder):
    with pytest.raises(ClipError, match="^scores pickscore '.*dino': it lacks .* weights"):
        load_scores({"pickscore": dino_folder})
    with pytest.raises(ClipError, match="^scores cmmd 'nowhere': there is no such folder; give"):
        load_scores({"cmmd": "nowhere"})
    with pytest.raises(VisionModelError, match="^scores fd_dinov2 'nowhere': there is no such"):
        load_scores({"fd_dinov2": "nowhere"})


def test_a_comparison_has_them_in_results_summary_table_and_report(
    trained, clip_folder, dino_folder
):
    scores = [f"pickscore: {clip_folder}", f"fd_dinov2: {dino_folder}"]
    options = {"prompts": ["A cat"], "steps": 1, "captions": 5, "scores": scores}
    compared = compare(Compare(str(trained.folder), **options))
    results = json.loads((trained.compare / "results.json").read_text())
    assert results["scores"]["fd_dinov2"] == {
        "title": "FD-DINOv2",
        "better": "lower",
        "model": dino_folder,
        "of": "the data",
    }
    tuned = results["contenders"]["tuned"]["scores"]
    assert tuned.keys() == {"pickscore", "fd_dinov2"}
    assert all(score["count"] == 5 and score["low"] < score["high"] for score in tuned.values())
    value = f"{tuned['pickscore']['value']:.4g} ["
    line = rf"PickScore \(higher is better\): .*tuned {re.escape(value)}"
    assert re.search(line, summary(compared))
    assert value in numbers_table(compared)
    page = trained.report.read_text()
    assert "FD-DINOv2<small>lower is better</small>" in page and "PickScore<small>" in page
    assert "pictures of the same prompts, drawn as the data is, by" in page
