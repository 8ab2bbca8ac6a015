"""The stage: a cache's content, its reuse, what is encoded again, and damaged or partial caches."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from nbs_lib.cache.format import CAPTIONS, EXAMPLES, META, UNCONDITIONAL, CacheError
from nbs_lib.config import Prepare
from nbs_lib.config.validation import as_parameters
from nbs_lib.files import ROOT, file_hash
from nbs_lib.images.convert import to_tensor, to_uint8
from nbs_lib.models import EMBEDDED, BaseError, find_base
from nbs_lib.picturebook.dataset import draw_book
from nbs_lib.prepare import build, open_cache, prepare, preview
from nbs_lib.prepare.encode.encoder import Cropping
from nbs_lib.prepare.encode.worker_process import reload_picture
from nbs_lib.prepare.examples import InFile, SourceError
from nbs_lib.prepare.images import crop_position
from nbs_lib.prepare.sources.picturebook import PictureBookSource
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

PREPARE = """
import json, sys
from nbs_lib.config import Prepare
from nbs_lib.prepare import prepare
print(prepare(Prepare(**json.loads(sys.argv[1]))))
"""


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def caches(config: Prepare) -> list[str]:
    """Return the names in the store besides the index, receipts and locks."""
    store = Run(config.run).cache_store
    return (
        sorted(
            path.name
            for path in store.iterdir()
            if not path.name.startswith((".receipts", ".taking", "index"))
        )
        if store.exists()
        else []
    )


def dropped(run: Run) -> dict[str, str]:
    table = pyarrow.parquet.read_table(run.folder / "prepare" / "dropped.parquet").to_pylist()
    return {row["id"]: row["reason"] for row in table}


def latents_of(base, image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        return base.vae().encode(pixels).latent_dist.mean[0] * base.vae().config.scaling_factor


def test_a_cache_holds_what_the_base_makes_of_each_example(tmp_path):
    config = Prepare(run=str(tmp_path / "outputs" / "book"), max_examples=5, batch_size=2)
    prepared, base = prepare(config), find_base("embedded")
    cache, example = prepared.cache, list(PictureBookSource("picturebook", 5, 0))[3]
    [latent] = cache.latents([3])
    assert (
        latent.shape == (16, 16, 16)
        and latent.dtype == torch.float32
        and cache.meta["shapes"] == {"16 16 16": 5}
    )
    torch.testing.assert_close(latent, latents_of(base, example.image.draw()), rtol=1e-4, atol=1e-5)
    text = base.encode_prompt([example.caption, ""], base.text_encoders()).context
    torch.testing.assert_close(cache.embeddings([3])[0], text[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cache.unconditional["empty"], text[1], rtol=1e-4, atol=1e-5)
    assert (cache.ids[3], cache.captions[3]) == (example.id, example.caption)
    assert cache.texts["tokens"][0].as_py() == len(base.tokenizer()(cache.captions[0]).input_ids)
    with Image.open(prepared.contact_sheet) as sheet:
        assert sheet.width > 5 * 64
    assert {path.name for path in prepared.pictures} >= {
        "as_trained.png",
        "sizes.png",
        "captions.png",
    }
    html = preview.first_example(cache)
    assert "data:image/png" in html and cache.captions[0] in html


@pytest.fixture
def scenes(folder: Path) -> Path:
    """The folder with pictures that the embedded VAE was trained on."""
    for name, picture in zip("abc", draw_book(3).images, strict=True):
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def test_pictures_of_which_the_vae_loses_much_are_named(scenes, config):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(noise).save(scenes / "<b>noise.png")
    (scenes / "<b>noise.txt").write_text("noise")
    prepared = prepare(config())
    ratios = prepared.cache.meta["reconstruction"]
    assert list(ratios)[0] == "<b>noise.png" and set(ratios) == set(prepared.cache.ids)
    assert list(ratios.values()) == sorted(ratios.values()) and list(ratios.values())[1] > 20
    base = find_base("embedded")
    pixels = to_tensor(noise[None])
    with torch.no_grad():
        [decoded] = to_uint8(base.decode(base.vae(), base.encode(base.vae(), pixels)))
    error = np.square(noise.astype(float) - decoded).mean()
    assert ratios["<b>noise.png"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.11)
    reused = prepare(config())
    assert reused.built.reused
    for result in (prepared, reused):
        assert "gives 1 of 4 measured pictures back with less than 20 dB" in str(result)
        html = preview.reconstruction_table(result.cache)
        assert "&lt;b&gt;noise.png" in html and "<b>noise" not in html and "1 of 4" in html


def test_without_poor_pictures_nothing_is_warned_about(scenes, config):
    prepared = prepare(config())
    assert "dB" not in str(prepared)
    table = preview.reconstruction_table(prepared.cache)
    assert "3 measured" in table and "loses" not in table


def test_a_picture_that_is_gone_is_not_measured(folder, config, monkeypatch):
    draw = build.draw_previews

    def remove(*arguments):
        # all are decoded and filtered by now
        (folder / "b.png").unlink()
        draw(*arguments)

    monkeypatch.setattr(build, "draw_previews", remove)
    # of another shape than the grey square that takes its place on the contact sheet
    prepared = prepare(config(buckets=True))
    assert set(prepared.cache.meta["reconstruction"]) == {"a.png", "c.png"}
    assert set(prepared.cache.ids) == {"a.png", "b.png", "c.png"}


def test_a_cache_of_an_earlier_version_has_no_ratios(config):
    cache = prepare(config()).cache
    meta = {name: value for name, value in cache.meta.items() if name != "reconstruction"}
    (cache.folder / META).write_text(json.dumps(meta))
    earlier = open_cache(cache.folder)
    assert preview.reconstruction_table(earlier) == ""
    (cache.folder / META).write_text(json.dumps(meta | {"reconstruction": {"a": "much"}}))
    with pytest.raises(CacheError, match="missing or damaged"):
        open_cache(cache.folder)


def test_equal_captions_share_an_embedding(folder, config):
    (folder / "c.txt").write_text("a plain picture, a")
    cache = prepare(config()).cache
    assert len(cache.texts) == 2 and cache.examples["caption"].to_pylist() == [0, 1, 0]


def test_the_run_links_to_its_cache_and_records_it(folder, config):
    (folder / "nobody.txt").write_text("x")
    prepared = prepare(config())
    run = prepared.run
    assert os.readlink(run.cache) == f"../cache/{prepared.cache.meta['key']}"
    record = run.stage_record("prepare")
    assert record["status"] == "done" and list(record["outputs"]) == ["cache/cache.json"]
    assert record["cache"] == prepared.cache.meta["key"]
    assert (record["examples"], record["dropped"], record["reused"]) == (
        3,
        {"caption without image": 1},
        False,
    )
    assert (
        dropped(run) == {"nobody.txt": "caption without image"}
        and prepared.some_dropped()[0]["id"] == "nobody.txt"
    )
    rows = pyarrow.parquet.read_table(run.folder / "prepare" / "kept.parquet").to_pylist()
    assert [(row["id"], row["width"], row["height"], row["prior"]) for row in rows][1] == (
        "b.png",
        80,
        64,
        False,
    )
    assert run.changed(config()) == []


def test_an_equal_run_reads_and_encodes_nothing(config, tmp_path):
    first = prepare(config())
    before = times(first.cache.folder)
    second = prepare(config(run=str(tmp_path / "outputs" / "other")))
    assert not first.built.reused and second.built.reused and "nothing was encoded" in str(second)
    assert (
        first.built.decoded,
        first.built.encoded,
        second.built.decoded,
        second.built.encoded,
    ) == (3, 3, 0, 0)
    assert second.cache.folder == first.cache.folder and times(first.cache.folder) == before


def test_only_what_changed_is_encoded_again(folder, config, tmp_path):
    first = prepare(config(teacher_cache="data", teacher_samples=2))
    changes = []

    def again(**parameters) -> tuple[int, int]:
        result = prepare(config(**{"teacher_cache": "data", "teacher_samples": 2} | parameters))
        changes.append(result.cache.meta["key"])
        return result.built.decoded, result.built.encoded

    with Image.open(folder / "b.png") as image:
        image.putpixel((40, 30), (0, 0, 0))
        image.save(folder / "b.png")
    assert again() == (1, 1), "one pixel of one image"
    now = open_cache(Run(config().run).cache)
    assert torch.equal(now.latents([0, 2]), first.cache.latents([0, 2]))
    assert not torch.equal(now.latents([1]), first.cache.latents([1]))
    (folder / "b.txt").write_text("another caption")
    assert again() == (0, 0), "a caption"
    assert again(negative_prompt="blurry") == (0, 0)
    assert again(resolution=32)[1] == 3
    assert again(template="a photo of {}") == (0, 0)
    os.utime(folder / "a.png")
    assert again() == (1, 0), "a file that was touched is read again, and found to be the same"
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED, base, ignore=shutil.ignore_patterns("clip"))
    assert again(base=str(base)) == (0, 0), "the same weights elsewhere"
    vae = find_base(str(base)).vae()
    vae.encoder.conv_in.bias.add_(0.1)
    vae.save_pretrained(base / "vae")
    texts = {
        path.name: path.stat().st_ino for path in (Run(config().run).cache / "texts").iterdir()
    }
    assert again(base=str(base))[1] == 3, "the VAE"
    assert {
        path.name: path.stat().st_ino for path in (Run(config().run).cache / "texts").iterdir()
    } == texts, "linked"
    assert len(set(changes)) == len(changes) - 1, (
        "the one that was touched holds what the one before it did"
    )


@pytest.mark.parametrize(
    "name", ["latents", "texts", "answers", UNCONDITIONAL, EXAMPLES, CAPTIONS, META]
)
def test_a_damaged_cache_is_named_and_built_again_the_same(name, config, capsys):
    request = config(teacher_cache="data", teacher_samples=2)
    folder = prepare(request).cache.folder
    complete, path = files(folder), folder / name
    path = next(path.iterdir()) if path.is_dir() else path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.unlink()  # its bytes are shared with other caches
    path.write_bytes(data)
    with pytest.raises(CacheError, match=path.name):
        open_cache(folder)
    capsys.readouterr()
    again = prepare(request)
    assert not again.built.reused and again.built.encoded == (3 if name in ("latents", META) else 0)
    assert path.name in capsys.readouterr().out and files(folder) == complete
    (folder / EXAMPLES).unlink()
    with pytest.raises(CacheError, match=EXAMPLES):
        open_cache(folder)


MANY = {"source": "picturebook", "max_examples": 900, "batch_size": 8}
"""Parameters of a cache of eight shards."""


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory) -> dict[str, bytes]:
    """Return the files of the cache of MANY, built in one go."""
    folder = tmp_path_factory.mktemp("elsewhere") / "whole"
    return files(prepare(Prepare(run=str(folder), **MANY)).cache.folder)


@pytest.mark.parametrize("victim", ["command", "process"])
def test_a_killed_run_resumes_after_its_last_whole_shard(config, tmp_path, victim, never_killed):
    request = config(
        **MANY,
        num_processes=1,
        run=str(tmp_path / "outputs" / "killed"),
    )
    command = [sys.executable, "-W", "ignore", "-c", PREPARE, json.dumps(as_parameters(request))]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    store, end = Run(request.run).cache_store, time.monotonic() + 60
    while len(list(store.glob(".building-*/latents/[!.]*.safetensors"))) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    if victim == "command":
        process.kill()
    else:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
    output = process.communicate(timeout=60)[1]
    assert process.returncode != 0 and (
        victim == "command" or "was ended by SIGKILL; memory may have run out" in output
    )
    n_shards = len(list(store.glob(".building-*/latents/[!.]*.safetensors")))
    assert (
        2 <= n_shards < 8 and [name for name in caches(request) if not name.startswith(".")] == []
    )
    again = prepare(request)
    assert (
        not again.built.reused
        and 0 < again.built.encoded <= 900 - 128 * 2
        and again.cache.meta["examples"] == 900
    )
    assert caches(request) == [again.cache.meta["key"]], "nothing is left over"
    assert files(again.cache.folder) == never_killed


def test_of_two_equal_runs_one_builds_and_the_other_waits(config, tmp_path):
    parameters = {"source": "picturebook", "max_examples": 1200, "num_processes": 1}
    request = [
        config(**parameters, run=str(tmp_path / "outputs" / name)) for name in ("one", "two")
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PREPARE, json.dumps(as_parameters(item))],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for item in request
    ]  # fmt: skip
    output = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], output
    assert sorted("reused, nothing was encoded" in out for out, _ in output) == [False, True]
    assert sum("another process is building this cache" in out for out, _ in output) == 1
    assert len(caches(request[0])) == 1


def test_a_full_disk_is_reported_with_the_missing_mebibytes_and_the_run_resumes(config, small_disk):
    request = config(
        source="picturebook", max_examples=4000, run=str(small_disk / "outputs" / "run")
    )
    with pytest.raises(
        RuntimeError,
        match=r"is full: \d+ MiB were written for \d+ of 4000 examples; about \d+ MiB more are",
    ):
        prepare(request)
    assert "is full" in Run(request.run).stage_record("prepare")["error"]
    n_shards = len(list(Run(request.run).cache_store.glob(".building-*/latents/[!.]*.safetensors")))
    assert n_shards > 2 and not list(
        Run(request.run).cache_store.glob(".building-*/latents/.*.part")
    )
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = prepare(request)
    assert (
        again.built.encoded <= 4000 - 128 * (n_shards - 1) and again.cache.meta["examples"] == 4000
    )


def test_an_empty_source_leaves_no_new_run_and_records_the_failure_of_an_existing_one(
    config, tmp_path
):
    (tmp_path / "empty").mkdir()
    empty = config(source=str(tmp_path / "empty"))
    with pytest.raises(SourceError, match="has no images"):
        prepare(empty)
    assert caches(empty) == [] and not Run(empty.run).folder.exists()
    Run(empty.run).update(name="there already")
    with pytest.raises(SourceError, match="has no images"):
        prepare(empty)
    record = Run(empty.run).stage_record("prepare")
    assert record["status"] == "failed" and "has no images" in record["error"]


def test_an_error_names_the_filters_that_dropped_everything(folder, config):
    with pytest.raises(SourceError, match="nothing in it can be used .3 × smaller than min_side."):
        prepare(config(min_side=1000))
    for name in "abc":
        (folder / f"{name}.txt").unlink()
    with pytest.raises(
        SourceError,
        match="none of its 3 images has a caption; write .*give captions = .names., or name a cap",
    ):
        prepare(config())


def test_an_error_while_encoding_leaves_no_part(folder, config, tmp_path):
    """A VAE whose weights are numbers, but too large to compute with."""
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED, base, ignore=shutil.ignore_patterns("clip"))
    vae = find_base(str(base)).vae()
    vae.encoder.conv_in.bias.fill_(3e38)
    vae.save_pretrained(base / "vae")
    with pytest.raises(BaseError, match="not finite"):
        prepare(config(base=str(base)))
    assert caches(config()) == [] and not Run(config().run).cache.is_symlink()


def test_buckets_keep_proportions_and_flip_adds_mirrored_rows(tmp_path, config):
    source = tmp_path / "shapes"
    source.mkdir()
    for i, size in enumerate([(300, 150), (150, 300), (200, 200), (310, 150)]):
        image = Image.new("RGB", size, (40, 40, 40))
        image.paste((250, 20, 20), (0, 0, size[0] // 4, size[1]))  # red on the left
        image.save(source / f"{i}.png")
        (source / f"{i}.txt").write_text(f"number {i}")
    cache = prepare(config(source=str(source), buckets=True, flip=True)).cache
    assert (
        cache.meta["shapes"] == {"16 20 12": 2, "16 12 20": 4, "16 16 16": 2}
        and cache.meta["examples"] == 8
    )
    rows, base = cache.examples.to_pylist(), find_base("embedded")
    for position, row in enumerate(rows):
        [latent] = cache.latents([position])
        picture = base.decode(base.vae(), latent[None])[0]
        left, right = (
            picture[0, :, : picture.shape[2] // 8].mean(),
            picture[0, :, -picture.shape[2] // 8 :].mean(),
        )
        assert (left > right) != row["flipped"], row
    assert {row["id"] for row in rows if row["flipped"]} == {f"{i}.png" for i in range(4)}


def test_pictures_of_another_run_are_not_overwritten(folder, config):
    """Going back to parameters of before shows what was seen then."""
    first = prepare(config())
    before = (first.run.folder / "prepare" / "sizes.png").read_bytes()
    Image.new("RGB", (400, 200)).save(folder / "c.png")
    prepare(config())
    assert (first.run.folder / "prepare" / "sizes.png").read_bytes() != before
    Image.new("RGB", (80, 64), (30, 30, 200)).save(folder / "c.png")
    again = prepare(config())
    assert (again.run.folder / "prepare" / "sizes.png").read_bytes() == before


def test_prompts_alone_become_texts_and_the_teacher_s_own_sampling(tmp_path, config):
    (tmp_path / "prompts.txt").write_text("a road\na cat\na road\n")
    cache = prepare(
        config(
            source=str(tmp_path / "prompts.txt"), teacher_cache="trajectories", teacher_samples=2
        )
    ).cache
    assert (
        not cache.meta["images"]
        and not (cache.folder / "latents").exists()
        and cache.meta["examples"] == 3
    )
    [file] = (cache.folder / "answers").iterdir()
    states = load_file(file)["x_t"]
    assert states.shape == (3, 2, 16, 16, 16) and not torch.equal(states[0], states[2]), (
        "each has its own noise"
    )
    once = prepare(config(source=str(tmp_path / "prompts.txt"), drop_same_prompts=True))
    assert once.dropped == {"same prompt as another": 1} and once.cache.meta["examples"] == 2


def test_a_prior_comes_last_with_a_prefix_in_its_ids(folder, config):
    prepared = prepare(
        config(
            prior_preservation_source=str(folder),
            prior_preservation_max_examples=2,
            template="mine, {}",
        )
    )
    assert prepared.cache.ids == ["a.png", "b.png", "c.png", "prior/a.png", "prior/b.png"]
    assert prepared.cache.examples["prior"].to_pylist() == [False] * 3 + [True] * 2
    assert (
        prepared.cache.captions[2:4] == ["mine, a plain picture, c", "a plain picture, a"]
        and prepared.built.more
    )


def test_an_image_that_changes_on_the_way_is_noticed(folder):
    with pytest.raises(SourceError, match="changed or removed while it was being prepared"):
        reload_picture(InFile(folder / "a.png"), b"the digest that it had", Cropping([(64, 64)]))


def test_a_resolution_that_the_vae_cannot_reduce_is_refused(config, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED, base, ignore=shutil.ignore_patterns("clip"))
    shutil.rmtree(base / "vae")
    down, up = ("DownEncoderBlock2D",) * 6, ("UpDecoderBlock2D",) * 6
    vae = AutoencoderKL(
        down_block_types=down,
        up_block_types=up,
        block_out_channels=(4,) * 6,
        norm_num_groups=2,
        latent_channels=16,
    )
    vae.save_pretrained(base / "vae")
    with pytest.raises(
        BaseError, match="parameter resolution: given 72.* multiple of 32, for example 64"
    ):
        prepare(config(base=str(base), resolution=72))


def test_a_real_folder_at_the_link_s_path_is_left_alone(config):
    mine = Run(config().run).cache
    mine.mkdir(parents=True)
    (mine / "mine").touch()
    with pytest.raises(FileExistsError, match="in the way"):
        prepare(config())
    assert (mine / "mine").exists()


def test_lengthy_captions_are_counted(folder, config):
    (folder / "a.txt").write_text("a boy and " * 100)
    prepared = prepare(config())
    assert prepared.cache.meta["captions_cut"] == 1 and "longer than the text encoder reads" in str(
        prepared
    )


def test_random_crops_differ_between_images_and_not_between_runs(folder, config, tmp_path):
    for i, path in enumerate(
        sorted(folder.glob("*.png"))
    ):  # wide, and other colours from left to right
        across = np.linspace(0, 255, 384, dtype=np.uint8) // (i + 1)
        Image.fromarray(np.broadcast_to(across[None, :, None], (128, 384, 3)).copy()).save(path)
    center, random = prepare(config()), prepare(config(crop="random"))
    again = prepare(config(crop="random", run=str(tmp_path / "elsewhere" / "run")))
    other = prepare(config(crop="random", seed=1))
    assert again.cache.meta["key"] == random.cache.meta["key"] != other.cache.meta["key"]
    assert center.cache.meta["key"] not in (random.cache.meta["key"], other.cache.meta["key"])
    middles, cuts, others = (item.cache.latents([0, 1, 2]) for item in (center, random, other))
    assert torch.equal(again.cache.latents([0, 1, 2]), cuts)
    assert not any(map(torch.equal, cuts, middles)) and not any(map(torch.equal, cuts, others))
    base, image = find_base("embedded"), Image.open(folder / "a.png")
    left = round(256 * crop_position(bytes.fromhex(file_hash(folder / "a.png")), 0))
    near = latents_of(base, image.crop((left, 0, left + 128, 128)))
    assert (cuts[0] - near).abs().mean() < 0.2 * (middles[0] - near).abs().mean(), (
        "its place is a hash's of image and seed"
    )
