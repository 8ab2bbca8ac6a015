import shutil

import pytest
import torch

from nbs_lib.models import EMBEDDED, MIRRORS, WEIGHTS, BaseError, find_base


def test_the_embedded_base_loads_in_stock_pipelines_and_is_small():
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel

    StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True)
    CLIPModel.from_pretrained(EMBEDDED / "clip", local_files_only=True)
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*")) < 25e6


def test_a_local_folder_is_a_base_of_the_same_hash(tmp_path):
    folder = tmp_path / "my bäse"
    shutil.copytree(EMBEDDED, folder)
    assert find_base(str(folder)).hash == find_base("embedded").hash
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert find_base(str(folder)).hash != find_base("embedded").hash


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_that_lacks_a_part_is_refused_by_the_part_s_name(tmp_path, part):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED, folder)
    shutil.rmtree(folder / part)
    with pytest.raises(BaseError, match=f"lacks {part}/"):
        find_base(str(folder))


def test_pickled_weights_are_not_weights(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BaseError, match="unet/.*safetensors"):
        find_base(str(folder))


def test_a_damaged_part_is_named_when_it_is_loaded(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED, folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    (folder / "unet" / "config.json").write_text("{")
    base = find_base(str(folder))
    for part in ("vae", "unet"):
        with pytest.raises(BaseError, match=f"its {part} does not load .*fetch {part}/ again"):
            getattr(base, part)()


def test_weights_in_half_precision_are_taken_where_there_are_no_others(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED, folder)
    for part, stem in WEIGHTS.items():
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}.fp16.safetensors")
    base, embedded = find_base(str(folder)), find_base("embedded")
    for part in WEIGHTS:
        alone, known = (getattr(each, part)().state_dict() for each in (base, embedded))
        assert all(value.dtype == torch.float32 and torch.equal(value, known[name]) for name, value in alone.items()), part


def test_files_that_are_not_loaded_do_not_make_another_base(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED, folder)
    for name in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors", "notes.md"):
        (folder / "unet" / name).write_bytes(b"beside")
    assert find_base(str(folder)).hash == find_base("embedded").hash


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BaseError, match="no such folder"):
        find_base(str(tmp_path / "absent"))


@pytest.mark.parametrize("name", [*MIRRORS, "models/sd 15"])
def test_a_hub_that_cannot_be_reached_names_all_that_was_tried(python, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = python(
        "import sys\nfrom nbs_lib.models import *\ntry: find_base(sys.argv[1])\nexcept BaseError as e: print(e)", name
    ).stdout
    assert all(candidate in said for candidate in (name, *MIRRORS.get(name, ()))) and "local folder" in said
