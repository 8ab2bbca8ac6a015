"""The training of the flow base, on a tiny scale."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from nbs_lib.config import MakeBase
from nbs_lib.flow import flow_velocity
from nbs_lib.models import BaseError, StableDiffusion3, find_base
from nbs_lib.picturebook.training import find_packages, make_base, measure_base, scoring_clip
from nbs_lib.picturebook.training.assemble import assemble_flow
from nbs_lib.picturebook.training.clip import new_clip
from nbs_lib.picturebook.training.loop.fit import Fit
from nbs_lib.picturebook.training.make import load_start
from nbs_lib.picturebook.training.mmdit import (
    N_TIMESTEPS,
    FlowNetworks,
    draw_timesteps,
    flow_scheduler,
    new_networks,
    train_transformer,
)
from nbs_lib.picturebook.training.pictures.stored_book import StoredBook
from nbs_lib.picturebook.training.tokenizer import tokens, train_tokenizer
from nbs_lib.picturebook.training.vae import new_vae
from nbs_lib.picturebook.words import learned_words

# the stock pipeline does without only if it is asked to
WITHOUT_T5 = {"text_encoder_3": None, "tokenizer_3": None}
TEXTS = ["a cat, red", "", "two snowmen at night"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The parts of a finished base that a flow takes, with random weights."""
    folder = tmp_path_factory.mktemp("start") / "my bäse"
    tokenizer = train_tokenizer(["a cat holds a red ball", "two snowmen stand at night"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip, vae = new_clip(tokenizer, layers=2), new_vae((8, 8, 8, 8))
    vae.register_to_config(scaling_factor=0.5)
    vae.half().save_pretrained(folder / "vae")
    clip.half().save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def config(start) -> MakeBase:
    return MakeBase(family="flow", base=str(start), groups=12, flow_steps=2, captions=3)


@pytest.fixture(scope="module")
def flow_base(config, tmp_path_factory):
    """A tiny flow base in a path with a space and letters beyond ASCII, and its cost."""
    folder = tmp_path_factory.mktemp("flow") / "my bäse"
    return folder, make_base(config, folder)


def parts_of(start) -> tuple:
    """Return the tokenizer, the text tower and the VAE of a start."""
    tokenizer, vae, text_encoder = load_start(str(start))
    return tokenizer, text_encoder, vae


def networks_for(text_encoder, layers: int) -> FlowNetworks:
    """Return untrained networks, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return new_networks(text_encoder, (16, 16, 16), layers)


def test_texts_are_encoded_as_the_stock_pipeline_encodes_them(start, tmp_path):
    tokenizer, text_encoder, vae = parts_of(start)
    networks = networks_for(text_encoder, layers=1)
    assemble_flow(tmp_path, tokenizer, vae, text_encoder, networks)
    with torch.no_grad():
        # the written weights are in fp16
        ids = tokens(tokenizer, TEXTS)
        context, pooled = networks.float().encode(text_encoder.float(), ids)
    pipe = StableDiffusion3Pipeline.from_pretrained(tmp_path, **WITHOUT_T5)
    stock, _, stock_pooled, _ = pipe.encode_prompt(
        TEXTS, None, None, do_classifier_free_guidance=False
    )
    assert stock.shape == (3, 40 + 256, 192 + 64)
    torch.testing.assert_close(context, stock, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled, stock_pooled, rtol=1e-4, atol=1e-5)


def test_timesteps_are_most_often_in_the_middle_and_come_to_both_ends():
    t = draw_timesteps(200_000, torch.Generator().manual_seed(0))
    assert int(t.min()) <= 1 and int(t.max()) == N_TIMESTEPS - 1
    middle = ((t >= 250) & (t < 750)).float().mean()
    # 0.728 of a logit-normal, and half of those drawn evenly
    assert float(middle) == pytest.approx(0.9 * 0.728 + 0.1 * 0.5, abs=0.01)
    # at the last timestep there is noise alone
    assert float(flow_scheduler().sigmas[0]) == 1.0
    assert not flow_scheduler().config.use_dynamic_shifting


def test_the_velocity_is_learned(start, tmp_path):
    """Halfway a single number says nothing of the velocity, so the numbers beside it are read."""
    tokenizer, text_encoder, _ = parts_of(start)
    networks = networks_for(text_encoder, layers=1)
    book = StoredBook(tmp_path, 1)
    generator = torch.Generator().manual_seed(0)
    # flat latents: a few numbers a picture, so that a few steps are enough
    latents = torch.randn(len(book), 16, 1, 1, generator=generator).expand(-1, -1, 16, 16)
    options = Fit(80, 16, 3e-3, ema=0.9)
    result = train_transformer(networks, text_encoder, tokenizer, book, latents, options, tmp_path)
    assert result["samples"] == 80 * 16
    noise = torch.randn(len(book), 16, 16, 16, generator=generator)
    with torch.no_grad():
        context, pooled = networks.encode(text_encoder, tokens(tokenizer, [""] * len(book)))
        noised, t = (latents + noise) / 2, torch.full((len(book),), 500.0)
        velocity = networks.transformer(noised, context, pooled, t, return_dict=False)[0]
    target = flow_velocity(latents, noise)
    assert (velocity - target).square().mean() < 0.7 * target.square().mean()


def test_a_tiny_flow_base_loads_in_a_stock_pipeline_and_is_measured(flow_base, config, start):
    folder, spent = flow_base
    assert spent["networks"]["mmdit"]["samples"] == 64 and spent["licences"] == {}
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, **WITHOUT_T5)
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "output_type": "np", "generator": generator}
    picture = pipe("a cat", guidance_scale=3.0, **options).images
    assert picture.shape == (1, 128, 128, 3) and np.isfinite(picture).all()
    assert type(find_base(str(folder))) is StableDiffusion3
    for part in [part for part in folder.iterdir() if part.name != "scratch" and part.is_dir()]:
        for settings in part.glob("*.json"):
            assert start.parent.name not in settings.read_text(), "a path of this machine"
    assert find_packages(config) is None and scoring_clip(config) == start / "clip"
    results = measure_base(folder, 3, spent, scales=(1.0, 2.0), clip_folder=scoring_clip(config))
    assert set(results["caption_first_by_guidance"]) == {"1", "2"} and results["icons"] == 0
    assert json.loads((folder / "card.json").read_text()) == results
    card = (folder / "README.md").read_text()
    assert "Euler steps" in card and "| mmdit | 2 | 64 |" in card and "npm package" not in card
    assert "umbrella" in learned_words(folder)


def test_a_stock_pipeline_draws_what_the_counted_tokens_give(flow_base):
    folder, _ = flow_base
    stock = StableDiffusion3Pipeline.from_pretrained(folder, **WITHOUT_T5)
    pictures = [
        pipe(
            "a cat",
            num_inference_steps=2,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images
        for pipe in (stock, find_base(str(folder)).pipeline())
    ]
    np.testing.assert_allclose(*pictures, atol=1e-4)


def test_a_finished_flow_is_not_trained_again_and_a_seed_fixes_it(flow_base, config, tmp_path):
    folder, spent = flow_base
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    state = folder / "scratch" / "mmdit.safetensors"
    written = state.stat().st_mtime_ns
    assert make_base(config, folder)["networks"] == spent["networks"]
    assert state.stat().st_mtime_ns == written and weights.read_bytes() == before
    make_base(config, tmp_path)
    for part in ("transformer/diffusion_pytorch_model", "text_encoder_2/model"):
        first = (folder / f"{part}.safetensors").read_bytes()
        assert first == (tmp_path / f"{part}.safetensors").read_bytes(), part


def test_a_start_without_clip_is_refused(start, tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    config = MakeBase(family="flow", base=str(tmp_path))
    with pytest.raises(BaseError, match="lacks clip; give embedded or a folder that"):
        make_base(config, tmp_path / "flow")
    assert not (tmp_path / "flow").exists()


def test_each_family_has_a_folder_of_its_own():
    assert MakeBase().result_folder == "outputs/base"
    assert MakeBase(family="flow").result_folder == "outputs/flow-base"
    assert MakeBase(family="flow", folder="outputs/mine").result_folder == "outputs/mine"
