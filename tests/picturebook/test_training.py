"""The training of the base: the shared loop, CLIP's losses, and all of it on a tiny scale."""

import json

import numpy as np
import pytest
import torch

from nbs_lib.config import MakeBase
from nbs_lib.picturebook.captions import ATTRIBUTES, Caption, Scene
from nbs_lib.picturebook.dataset import draw_grouped_book
from nbs_lib.picturebook.training import make_base, measure_base
from nbs_lib.picturebook.training.clip import (
    ClipWithReader,
    new_clip,
    tokens,
    train_tokenizer,
    true_of_other_pictures,
)
from nbs_lib.picturebook.training.fit import Fit, train_network
from nbs_lib.picturebook.words import learned_words

TINY = MakeBase(groups=16, vae_steps=2, clip_steps=2, unet_steps=2, captions=3)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(captions=500)


def fit_line(folder, steps: int, slope: float = 3.0) -> dict:
    """Fit a line to y = slope · x from fixed weights; return the result of `fit` and the line."""
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)

    def draw_batch(generator):
        x = torch.randn(16, 1, generator=generator)
        return x, slope * x

    def loss(x, y):
        return (model(x).float() - y).square().mean()

    result = train_network("line", model, draw_batch, loss, Fit(steps, 16, 0.05), folder)
    return result | {"weight": float(model.weight), "bias": float(model.bias)}


def test_fit_learns_and_ends_with_averaged_weights(tmp_path):
    result = fit_line(tmp_path, 1000)
    assert result["steps"] == 1000 and result["samples"] == 16_000
    assert result["weight"] == pytest.approx(3, abs=0.1)
    assert result["bias"] == pytest.approx(0, abs=0.1)
    lines = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(50, 1001, 50))
    assert lines[-1]["loss"] == result["loss"]


def test_an_interrupted_fit_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    uninterrupted = fit_line(tmp_path / "uninterrupted", 1000)
    save = torch.nn.utils.clip_grad_norm_
    steps = iter(range(10_000))

    def interrupt(*args):
        if next(steps) == 700:
            raise KeyboardInterrupt
        return save(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.nn.utils, "clip_grad_norm_", interrupt)
        fit_line(tmp_path / "killed", 1000)
    resumed = fit_line(tmp_path / "killed", 1000)
    assert (resumed["weight"], resumed["bias"]) == (uninterrupted["weight"], uninterrupted["bias"])


def test_a_finished_fit_is_reused_only_for_the_same_data(tmp_path):
    first = fit_line(tmp_path, 500)
    state = (tmp_path / "line.safetensors").stat().st_mtime_ns
    assert fit_line(tmp_path, 500) == first
    assert (tmp_path / "line.safetensors").stat().st_mtime_ns == state
    other = fit_line(tmp_path, 500, slope=-3.0)
    assert other["weight"] < 0 and len((tmp_path / "line.jsonl").read_text().splitlines()) == 10


def test_the_tokenizer_reads_unseen_words_and_marks_the_ends(tokenizer):
    ids = tokens(tokenizer, ["A boy is watching TV", "Zürich, 🎾!"])
    assert ids.shape == (2, 40)
    assert (ids[:, 0] == tokenizer.bos_token_id).all()
    assert (ids[:, -1] == tokenizer.eos_token_id).all()
    assert tokenizer.decode(ids[0], skip_special_tokens=True).strip() == "a boy is watching tv"
    assert tokenizer.decode(ids[1], skip_special_tokens=True).replace(" ", "") == "zürich,🎾!"


def test_a_caption_that_is_true_of_another_picture_is_no_negative():
    red, blue = (Scene("ball", (shirt, "green", "left", "day")) for shirt in ("red", "blue"))
    captions = [Caption(red, 0, frozenset({"ball"})), Caption(blue, 0, frozenset({"shirt"}))]
    assert true_of_other_pictures(captions).tolist() == [[False, False], [True, False]]


def test_the_reader_s_targets_are_the_scene_s_values_or_the_named_ones(tokenizer):
    model = ClipWithReader(new_clip(tokenizer, layers=1), seed=0)
    caption = Caption(Scene("ball", ("red", "green", "right", "night")), 0, frozenset({"side"}))
    names = list(model.values)
    scene = model.targets([caption], named=False)[0].tolist()
    named = model.targets([caption], named=True)[0].tolist()
    assert {n for n, i in zip(names, scene, strict=True) if i >= 0} == set(ATTRIBUTES["ball"])
    assert {n: i for n, i in zip(names, named, strict=True) if i >= 0} == {"side": 1}
    sizes = [len(values) for values in model.values.values()]
    read = torch.zeros(1, sum(sizes))
    target = model.targets([caption], named=True)
    assert float(model.reading_loss(read, target)) == pytest.approx(np.log(2))
    read[0, sum(sizes[: names.index("side")]) + 1] = 50.0  # sure of "right"
    assert float(model.reading_loss(read, target)) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def trained_base(tmp_path_factory):
    """A tiny base in a path with a space and letters beyond ASCII, and its cost."""
    folder = tmp_path_factory.mktemp("make") / "my bäse"
    return folder, make_base(TINY, folder)


def test_a_tiny_base_loads_in_a_stock_pipeline_and_is_measured(trained_base):
    from diffusers import StableDiffusionPipeline

    folder, spent = trained_base
    samples = {name: cost["samples"] for name, cost in spent["networks"].items()}
    assert samples == {"vae": 64, "clip": 128, "unet": 64}
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    picture = pipe(
        "a cat", num_inference_steps=1, output_type="np", generator=torch.Generator().manual_seed(0)
    ).images
    assert picture.shape == (1, 64, 64, 3) and np.isfinite(picture).all()
    results = measure_base(folder, captions=3, spent=spent, scales=(1.0, 2.0))
    assert set(results["caption_first_by_guidance"]) == {"1", "2"}
    assert json.loads((folder / "card.json").read_text()) == results
    assert "| sampled at w = 2" in (folder / "README.md").read_text()


def test_a_base_says_which_words_it_learned(trained_base):
    words = learned_words(trained_base[0])
    assert {"umbrella", "3d"} <= words and "astronaut" not in words


def test_a_seed_fixes_the_weights(trained_base, tmp_path):
    make_base(TINY, tmp_path)
    for part in (
        "vae/diffusion_pytorch_model",
        "clip/model",
        "text_encoder/model",
        "unet/diffusion_pytorch_model",
    ):
        first = (trained_base[0] / f"{part}.safetensors").read_bytes()
        second = (tmp_path / f"{part}.safetensors").read_bytes()
        assert first == second, part


def test_groups_hold_no_two_equal_scenes():
    book = draw_grouped_book(20)
    assert all(len(set(book.scenes[start : start + 8])) == 8 for start in range(0, len(book), 8))
