"""The stage: what a cache holds, when it is reused, and that a part of one is never read."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nbs_lib.config import Prepare
from nbs_lib.files import HOST
from nbs_lib.models import EMBEDDED, BaseError, find_base
from nbs_lib.prepare import open_cache, prepare
from nbs_lib.prepare.cache import EXAMPLES, LATENTS, META, TEXT, CacheError
from nbs_lib.prepare.sources import SourceError, picturebook
from nbs_lib.run import Run


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def caches(config: Prepare) -> list[str]:
    store = Run(config.run).cache_store
    return sorted(path.name for path in store.iterdir()) if store.exists() else []


def test_a_cache_holds_what_the_base_makes_of_each_example(tmp_path):
    config = Prepare(run=str(tmp_path / "outputs" / "book"), count=5, batch_size=2)
    prepared, base = prepare(config), find_base("embedded")
    cache = prepared.cache
    example = list(picturebook(5, 0))[3]
    pixels = torch.from_numpy(np.asarray(example.load()).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        latent = base.vae().encode(pixels).latent_dist.mean[0] * base.vae().config.scaling_factor
    assert cache.latents.shape == (5, 4, 16, 16) and cache.latents.dtype == torch.float32
    torch.testing.assert_close(cache.latents[3], latent, rtol=1e-4, atol=1e-5)
    text = base.embed([example.caption, ""], base.text_encoders()).context
    torch.testing.assert_close(cache.embeddings[cache.index[3]], text[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cache.empty, text[1], rtol=1e-4, atol=1e-5)
    assert (cache.ids[3], cache.captions[3]) == (example.id, example.caption)
    with Image.open(prepared.contact_sheet) as sheet:
        assert sheet.width > 5 * 64


def test_equal_captions_share_an_embedding(folder, config):
    (folder / "c.txt").write_text("a plain picture, a")
    cache = prepare(config()).cache
    assert len(cache.embeddings) == 2 and cache.index.tolist() == [0, 1, 0]


def test_the_run_links_to_its_cache_and_records_it(folder, config):
    (folder / "nobody.txt").write_text("x")
    prepared = prepare(config())
    run = prepared.run
    assert os.readlink(run.cache) == f"../cache/{prepared.cache.meta['key']}"
    record = run.stage_record("prepare")
    assert record["status"] == "done" and list(record["outputs"]) == ["cache/cache.json"]
    assert record["cache"] == prepared.cache.meta["key"]
    assert (record["examples"], record["skipped"], record["reused"]) == (3, 1, False)
    assert prepared.cache.skipped == [{"id": "nobody.txt", "reason": "caption without image"}]
    assert run.changed(config()) == []


def test_the_same_again_encodes_nothing_even_for_another_run(config, tmp_path):
    first = prepare(config())
    before = times(first.cache.folder)
    second = prepare(config(run=str(tmp_path / "outputs" / "other")))
    assert not first.reused and second.reused and "nothing was encoded" in str(second)
    assert second.cache.folder == first.cache.folder and times(first.cache.folder) == before


def test_what_changes_the_content_changes_the_key(folder, config):
    keys = [prepare(config()).cache.meta["key"]]
    keys.append(prepare(config(resolution=32)).cache.meta["key"])
    keys.append(prepare(config(base=str(EMBEDDED))).cache.meta["key"])
    (folder / "b.txt").write_text("another caption")
    keys.append(prepare(config()).cache.meta["key"])
    with Image.open(folder / "b.png") as image:
        image.putpixel((40, 30), (0, 0, 0))
        image.save(folder / "b.png")
    last = prepare(config())
    keys.append(last.cache.meta["key"])
    assert len(set(keys)) == 5
    assert last.run.cache.resolve() == last.cache.folder.resolve()


@pytest.mark.parametrize("name", [LATENTS, TEXT, EXAMPLES, META])
def test_a_damaged_cache_is_named_and_built_again_the_same(name, config, capsys):
    folder = prepare(config()).cache.folder
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    data = bytearray(whole[name])
    data[len(data) // 2] ^= 0xFF
    (folder / name).write_bytes(data)
    with pytest.raises(CacheError, match=name):
        open_cache(folder)
    capsys.readouterr()
    assert not prepare(config()).reused
    assert name in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_cache_that_lacks_a_file_is_damaged(config):
    folder = prepare(config()).cache.folder
    (folder / TEXT).unlink()
    with pytest.raises(CacheError, match=TEXT):
        open_cache(folder)


def test_what_a_killed_process_left_is_removed_and_not_read(config):
    key = prepare(config()).cache.meta["key"]
    store = Run(config().run).cache_store
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    left = store / f".{key}.{HOST}.{gone.stdout.strip()}.part"
    (store / key).rename(left)
    alive = store / f".{'0' * 64}.{HOST}.{os.getppid()}.part"
    alive.mkdir()
    assert not prepare(config()).reused
    assert caches(config()) == [alive.name, key]


def test_an_empty_folder_leaves_nothing_but_the_record(config, tmp_path):
    (tmp_path / "empty").mkdir()
    empty = config(source=str(tmp_path / "empty"))
    with pytest.raises(SourceError, match="has no images"):
        prepare(empty)
    assert caches(empty) == [] and [path.name for path in Run(empty.run).folder.iterdir()] == ["run.json"]
    record = Run(empty.run).stage_record("prepare")
    assert record["status"] == "failed" and "has no images" in record["error"]


def test_an_error_while_encoding_leaves_no_part(folder, config, tmp_path):
    """A VAE whose weights are not numbers."""
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED, base, ignore=shutil.ignore_patterns("clip"))
    vae = find_base(str(base)).vae()
    vae.encoder.conv_in.bias.fill_(float("nan"))
    vae.save_pretrained(base / "vae")
    with pytest.raises(BaseError, match="not finite"):
        prepare(config(base=str(base)))
    assert caches(config()) == [] and not Run(config().run).cache.is_symlink()


def test_a_resolution_that_the_vae_cannot_halve_is_refused(config, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED, base, ignore=shutil.ignore_patterns("clip"))
    path = base / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"block_out_channels": [16] * 6}))
    with pytest.raises(BaseError, match="parameter resolution: given 72.* multiple of 32, for example 64"):
        prepare(config(base=str(base), resolution=72))


def test_a_real_folder_in_the_place_of_the_link_is_left_alone(config):
    mine = Run(config().run).cache
    mine.mkdir(parents=True)
    (mine / "mine").touch()
    with pytest.raises(FileExistsError, match="in the way"):
        prepare(config())
    assert (mine / "mine").exists()


def test_lengthy_captions_are_counted(folder, config):
    (folder / "a.txt").write_text("a boy and " * 100)
    prepared = prepare(config())
    assert prepared.cache.meta["captions_cut"] == 1 and "longer than the text encoder reads" in str(prepared)


def test_the_files_alone_are_enough_for_a_reader(config):
    """What the training room does: it opens the files by their documented names, without this room."""
    folder = Run(prepare(config()).run.folder).cache
    text = load_file(folder / "text.safetensors")
    latents = load_file(folder / "latents.safetensors")["latents"]
    assert len(latents) == len(text["index"]) == json.loads((folder / "cache.json").read_text())["examples"] == 3
    assert text["embeddings"].shape[1:] == text["empty"].shape
