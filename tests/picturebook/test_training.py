"""The training of the base: the shared loop, CLIP's losses, and all of it on a tiny scale."""

import json
from random import Random

import numpy as np
import pytest
import torch

from nbs_lib.config import MakeBase
from nbs_lib.picturebook.captions import ATTRIBUTES, Caption, Scene
from nbs_lib.picturebook.dataset import GROUP, draw_grouped_book
from nbs_lib.picturebook.training import make_base, measure_base
from nbs_lib.picturebook.training.clip import Example, new_clip, true_of_other_pictures
from nbs_lib.picturebook.training.clip_reader import ClipWithReader
from nbs_lib.picturebook.training.loop import fit
from nbs_lib.picturebook.training.loop.fit import Fit, train_network
from nbs_lib.picturebook.training.pictures import stored_book
from nbs_lib.picturebook.training.pictures.stored_book import StoredBook
from nbs_lib.picturebook.training.tokenizer import (
    everyday_texts,
    stored_tokenizer,
    tokens,
    train_tokenizer,
)
from nbs_lib.picturebook.training.unet import LAYOUT, noise_schedule, training_caption
from nbs_lib.picturebook.words import learned_words

TINY = MakeBase(
    groups=12, pictures=32, vae_steps=2, clip_steps=2, unet_steps=2, velocity_steps=2, captions=3
)


@pytest.fixture(scope="module")
def tokenizer(packages):
    return train_tokenizer(everyday_texts(packages, captions=500))


def fit_line(folder, steps: int, data: str = "", **options) -> dict:
    """Fit a line to y = 3 x from fixed weights; return the result of `fit` and the line.

    data: hash of what it is trained on
    """
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)

    def draw_batch(generator):
        x = torch.randn(16, 1, generator=generator)
        return x, 3.0 * x

    def loss(x, y):
        return (model(x).float() - y).square().mean()

    what = Fit(steps, 16, 0.05)
    result = train_network("line", model, draw_batch, loss, what, folder, inputs=(data,), **options)
    return result | {"weight": model.weight.item(), "bias": model.bias.item()}


def test_fit_learns_and_ends_with_averaged_weights(tmp_path):
    result = fit_line(tmp_path, 1000)
    assert result["steps"] == 1000 and result["samples"] == 16_000
    assert result["weight"] == pytest.approx(3, abs=0.1)
    assert result["bias"] == pytest.approx(0, abs=0.1)
    lines = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(50, 1001, 50))
    assert lines[-1]["loss"] == result["loss"]


def test_an_interrupted_fit_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    # a state after each step
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    uninterrupted = fit_line(tmp_path / "uninterrupted", 400)
    save = torch.nn.utils.clip_grad_norm_
    steps = iter(range(10_000))

    def interrupt(*args):
        if next(steps) == 270:
            raise KeyboardInterrupt
        return save(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.nn.utils, "clip_grad_norm_", interrupt)
        fit_line(tmp_path / "killed", 400)
    resumed = fit_line(tmp_path / "killed", 400)
    assert (resumed["weight"], resumed["bias"]) == (uninterrupted["weight"], uninterrupted["bias"])
    lines = [json.loads(line) for line in (tmp_path / "killed/line.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(50, 401, 50))


def test_a_finished_fit_is_reused_only_for_the_same_inputs_and_options(tmp_path):
    first = fit_line(tmp_path, 200, "book 1")
    state = tmp_path / "line.safetensors"
    written = state.stat().st_mtime_ns
    assert fit_line(tmp_path, 200, "book 1") == first
    assert state.stat().st_mtime_ns == written
    fit_line(tmp_path, 200, "book 2")
    assert state.stat().st_mtime_ns != written
    written = state.stat().st_mtime_ns
    fit_line(tmp_path, 201, "book 2")
    assert state.stat().st_mtime_ns != written


def test_a_fit_without_time_ends_annealed_and_is_finished(tmp_path, monkeypatch):
    """The learning rate falls with the time too, so that what a cut training ends in is usable."""
    rates = []
    step = fit.Trainer.step

    def slow(self, number, factor, *args):
        rates.append(self.options.lr * factor)
        # each step takes a five hundredth of the time
        clock[0] += 0.02
        return step(self, number, factor, *args)

    clock = [0.0]
    monkeypatch.setattr(fit.Trainer, "step", slow)
    monkeypatch.setattr(fit.time, "perf_counter", lambda: clock[0])
    result = fit_line(tmp_path, 10_000, seconds=10.0)
    assert 499 <= result["steps"] <= 501 and result["seconds"] == 10
    assert max(rates) == pytest.approx(0.05, rel=0.01) and rates[-1] < 0.001
    assert result["weight"] == pytest.approx(3, abs=0.3)
    assert fit_line(tmp_path, 10_000, seconds=10.0)["steps"] == result["steps"]


def test_the_tokenizer_reads_unseen_words_and_marks_the_ends(tokenizer):
    ids = tokens(tokenizer, ["A boy is watching TV", "Zürich, 🎾!"])
    assert ids.shape == (2, 40)
    assert (ids[:, 0] == tokenizer.bos_token_id).all()
    assert (ids[:, -1] == tokenizer.eos_token_id).all()
    assert tokenizer.decode(ids[0], skip_special_tokens=True).strip() == "a boy is watching tv"
    assert tokenizer.decode(ids[1], skip_special_tokens=True).replace(" ", "") == "zürich,🎾!"


def scene_example(shirt: str, ball: str, *named: str) -> Example:
    caption = Caption(Scene("ball", (shirt, ball, "left", "day")), 0, frozenset(named))
    return Example(np.zeros((128, 128, 3), np.uint8), caption.text, caption)


def test_a_text_that_is_true_of_another_picture_is_no_negative():
    red, blue = scene_example("red", "green", "ball"), scene_example("blue", "green", "shirt")
    assert true_of_other_pictures([red, blue]).tolist() == [[False, False], [True, False]]
    koala, other, sun = (
        Example(red.picture, name, name=name) for name in ("koala", "koala", "sun")
    )
    # the second koala is of another style; no scene's caption describes an icon
    expected = [[False] * 4 for _ in range(4)]
    expected[0][1] = expected[1][0] = True
    assert true_of_other_pictures([koala, other, sun, red]).tolist() == expected


def test_a_training_that_goes_on_reads_the_tokenizer_that_it_began_with(tmp_path, packages):
    first = stored_tokenizer(tmp_path, everyday_texts(packages, captions=50))
    again = stored_tokenizer(tmp_path, ["other texts, with other words"])
    assert again.get_vocab() == first.get_vocab()
    assert len(first.get_vocab()) > 500


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
    icons = model.targets([None, caption], named=True)
    assert (icons[0] < 0).all() and torch.equal(icons[1:], target), "an icon has no values"
    read[0, sum(sizes[: names.index("side")]) + 1] = 50.0  # sure of "right"
    assert float(model.reading_loss(read, target)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("share", [0.07, 0.2])
def test_a_share_of_the_captions_has_one_wrong_value(share):
    rng = Random(0)
    scene = Scene("cake", ("3", "pink", "pink"))
    texts = [training_caption(scene, rng, share) for _ in range(6000)]
    right = {"3", "pink"}
    values = {value for choices in ATTRIBUTES["cake"].values() for value in choices}
    named = [set(text.replace(",", "").split()) & values for text in texts]
    # a caption that names no value has none that could be wrong
    wrong = [words - right for words in named if words]
    assert sum(not text for text in texts) / len(texts) == pytest.approx(0.1, abs=0.012)
    assert all(len(found) <= 1 for found in wrong)
    assert sum(map(len, wrong)) / len(wrong) == pytest.approx(share, abs=0.016)


def test_the_shipped_schedule_ends_in_more_noise_and_predicts_velocity():
    schedule = noise_schedule(LAYOUT)
    assert schedule.config.prediction_type == "v_prediction"
    # alpha² at the last timestep: Stable Diffusion's own is 0.0047
    assert float(schedule.alphas_cumprod[-1]) < 0.0005
    weights = LAYOUT.weights(schedule.alphas_cumprod)
    assert float(weights[-1]) == 1 and float(weights[0]) == pytest.approx(20 * 0.00085, rel=0.01)


def test_the_book_on_disk_is_the_one_that_is_drawn_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_book, "CHUNK", 2)
    drawn = draw_grouped_book(3, seed=1)
    stored = StoredBook(tmp_path, 3, seed=1)
    assert stored.scenes == drawn.scenes and len(stored) == 3 * GROUP
    places = [0, 2 * GROUP - 1, 2 * GROUP, len(stored) - 1]
    assert np.array_equal(stored.pictures(places), drawn.images[places])
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(files) == 2
    # a killed process had drawn the first chunk alone
    last = max(files, key=lambda path: int(path.stem.split("-")[0]))
    last.unlink()
    again = StoredBook(tmp_path, 3, seed=1)
    assert np.array_equal(again.pictures(places), drawn.images[places])
    assert all(path.stat().st_mtime_ns == files[path] for path in files if path != last)
    assert StoredBook(tmp_path, 1, seed=2).folder != stored.folder


@pytest.fixture(scope="module")
def trained_base(tmp_path_factory, packages):
    """A tiny base in a path with a space and letters beyond ASCII, and its cost."""
    folder = tmp_path_factory.mktemp("make") / "my bäse"
    return folder, make_base(TINY, folder, packages)


def test_a_tiny_base_loads_in_a_stock_pipeline_and_is_measured(trained_base, packages):
    from diffusers import StableDiffusionPipeline

    folder, spent = trained_base
    samples = {name: cost["samples"] for name, cost in spent["networks"].items()}
    assert samples == {"vae": 16, "clip": 128, "unet": 64, "unet-velocity": 64}
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    picture = pipe(
        "a cat", num_inference_steps=1, output_type="np", generator=torch.Generator().manual_seed(0)
    ).images
    assert picture.shape == (1, 128, 128, 3) and np.isfinite(picture).all()
    assert pipe.vae_scale_factor == 8 and pipe.unet.config.in_channels == 16
    results = measure_base(folder, 3, spent, scales=(1.0, 2.0), packages=packages)
    assert results["icons"] == 3 and results["psnr_icons_db"] > 0
    assert set(results["caption_first_by_guidance"]) == {"1", "2"}
    assert json.loads((folder / "card.json").read_text()) == results
    card = (folder / "README.md").read_text()
    assert "| sampled at w = 2" in card and "| unet-velocity | 2 |" in card
    # the card names every package's licence
    assert all(f"| {name} | of {name} |" in card for name in spent["licences"])
    assert "@iconify-json/openmoji" in spent["licences"]


def test_a_base_says_which_words_it_learned(trained_base):
    words = learned_words(trained_base[0])
    assert {"umbrella", "3d"} <= words and "astronaut" not in words


def test_a_seed_fixes_the_weights(trained_base, tmp_path, packages):
    make_base(TINY, tmp_path, packages)
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
