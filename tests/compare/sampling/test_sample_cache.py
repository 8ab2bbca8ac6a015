"""The sample cache: pictures are read, or sampled again if they are damaged."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from nbs_lib.compare.sampling.sample_cache import SampleCache, read_picture, write_picture
from nbs_lib.compare.sampling.sampler import Sampler
from nbs_lib.files import HOST, file_hash

HARMS = ("cut", "flipped bit", "latents cut", "latents gone", "another's", "text gone", "empty")
PROMPTS, SEEDS = ["A person holding a cat", "A beach", "A boy is watching TV"], [0, 1, 2]


@pytest.fixture(scope="module")
def sampler(base, adapter) -> Sampler:
    return Sampler(base, adapter, batch_size=2, resolution=128)


def sample(folder, sampler, steps=2, *options, messages=None):
    """Return a new cache of a folder, and its pictures of `tuned`."""
    cache = SampleCache(folder, sampler, warn=(messages if messages is not None else []).append)
    settings = sampler.resolver.resolve("tuned", steps, *options)
    return cache, cache.get_or_sample(settings, PROMPTS, SEEDS)


def test_a_picture_holds_its_settings(tmp_path, sampler, adapter, base):
    cache, samples = sample(tmp_path, sampler, 2, 0.5)
    assert cache.n_sampled == len(cache) == 3
    settings = sampler.resolver.resolve("tuned", 2, 0.5)
    plain = sampler.sample(settings, PROMPTS, SEEDS)
    assert np.array_equal(samples.images, plain.images) and torch.equal(
        samples.latents, plain.latents
    )
    for i, file in enumerate(samples.files):
        with Image.open(file) as image:
            record = json.loads(image.text["onepass"])
            assert np.array_equal(np.asarray(image), samples.images[i])
        assert (record["prompt"], record["seed"], record["steps"], record["w"]) == (
            PROMPTS[i],
            SEEDS[i],
            2,
            1.0,
        )
        weights = file_hash(adapter / "pytorch_lora_weights.safetensors")
        assert (
            record["adapters"] == [{"sha256": weights, "adapter_scale": 0.5}]
            and record["base_hash"] == base.hash
        )


def test_cached_pictures_are_reused_unless_settings_differ(tmp_path, sampler):
    _, first = sample(tmp_path, sampler)
    cache, again = sample(tmp_path, sampler)
    assert cache.n_sampled == 0 and again.files == first.files
    assert np.array_equal(again.images, first.images) and torch.equal(again.latents, first.latents)
    for options in ((3,), (2, 0.5), (2, 1.0, None, "LCMScheduler")):
        cache, other = sample(tmp_path, sampler, *options)
        assert cache.n_sampled == 3 and not set(other.files) & set(first.files)
    cache.prune()
    assert (
        sorted(tmp_path.glob("*.png")) == sorted(other.files) and len(list(tmp_path.iterdir())) == 6
    )


def test_pruning_removes_only_our_files(tmp_path, sampler):
    for folder in ("@eaDir", ".ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{'0' * 24}.png").write_text("mine")
    (tmp_path / "notes.png").write_text("mine")
    for name in (
        f"{'0' * 24}.png",
        f"{'0' * 24}.4194303.part",
        f".{'0' * 24}.png.{HOST}.4194303.part",
    ):
        (tmp_path / name).write_text("left")
    cache, samples = sample(tmp_path, sampler)
    cache.prune()
    expected = {file.name for file in samples.files} | {
        file.with_suffix(".safetensors").name for file in samples.files
    }
    assert {path.name for path in tmp_path.iterdir()} == expected | {
        "@eaDir",
        ".ipynb_checkpoints",
        "notes.png",
    }
    assert (tmp_path / "@eaDir" / f"{'0' * 24}.png").read_text() == "mine"


def text(record: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("onepass", record)
    return info


@pytest.mark.parametrize("harm", [*HARMS, "JPEG", "nested text", "endless", "turned"])
def test_a_damaged_picture_is_reported_and_its_batch_sampled_again(tmp_path, sampler, harm):
    _, first = sample(tmp_path, sampler)
    file, latents = first.files[2], first.files[2].with_suffix(".safetensors")
    data = file.read_bytes()
    if harm == "cut":
        file.write_bytes(data[:-200])
    elif harm == "flipped bit":
        file.write_bytes(data[:-900] + bytes([data[-900] ^ 1]) + data[-899:])
    elif harm == "latents cut":
        latents.write_bytes(latents.read_bytes()[:-10])
    elif harm == "latents gone":
        latents.unlink()
    elif harm == "another's":
        file.write_bytes(first.files[0].read_bytes())
        latents.write_bytes(first.files[0].with_suffix(".safetensors").read_bytes())
    elif harm == "JPEG":
        Image.fromarray(first.images[2]).save(file, "JPEG")
    elif harm == "nested text":
        Image.fromarray(first.images[2]).save(file, pnginfo=text("[" * 100_000))
    elif harm == "endless":
        Image.new("1", (60_000, 60_000)).save(file)
    elif harm == "turned":  # the same bytes, as a picture of another shape
        with Image.open(file) as opened:
            record = opened.text["onepass"]
        Image.fromarray(first.images[2].reshape(1, -1, 3)).save(file, pnginfo=text(record))
    elif harm == "text gone":
        Image.fromarray(first.images[2]).save(file)
    else:
        file.write_bytes(b"")
    messages = []
    cache, again = sample(tmp_path, sampler, messages=messages)
    assert cache.n_sampled == 1, "the third picture is a batch by itself"
    assert messages == [f"{file.name} is damaged; it is sampled again"]
    assert np.array_equal(again.images, first.images) and torch.equal(again.latents, first.latents)
    assert [file.read_bytes() for file in again.files][2] == data


def test_a_picture_is_read_as_written(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    latent = torch.arange(4.0).reshape(1, 2, 2)
    write_picture(tmp_path / "a.png", image, latent, {"prompt": "Ein Mädchen lächelt \U0001f600"})
    image_again, latents, record = read_picture(tmp_path / "a.png")
    assert (
        np.array_equal(image_again, image)
        and torch.equal(latents, latent)
        and record["prompt"] == "Ein Mädchen lächelt \U0001f600"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.safetensors"}
    assert read_picture(tmp_path / "none.png") is None
