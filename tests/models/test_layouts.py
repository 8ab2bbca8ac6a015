"""Every layout of a base, from its folder or file to an adapter, or to one clear sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from safetensors.torch import load_file, save_file

from nbs_lib.config import Prepare, Train
from nbs_lib.models import BaseError, find_base
from nbs_lib.models.components import CONFIGS, WEIGHTS
from nbs_lib.prepare import prepare

pytestmark = pytest.mark.slow

REVISION = "0123456789abcdef" * 2 + "01234567"
STEP = {
    "steps": 1,
    "batch_size": 2,
    "num_processes": 1,
    "validation_steps": 0,
    "mixed_precision": "fp32",
    "deepspeed": False,
    "rank": 2,
}


def change(file: Path, **settings):
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def with_parts(folder: Path, do: Callable[[Path], object]):
    for part in WEIGHTS:
        file = folder / part / f"{WEIGHTS[part]}.safetensors"
        if file.is_file():
            do(file)


def fp16_only(folder: Path):
    def halve(file: Path):
        weights = {name: weight.half() for name, weight in load_file(file).items()}
        save_file(weights, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
        file.unlink()

    with_parts(folder, halve)


def bin_only(folder: Path):
    with_parts(folder, lambda file: file.rename(file.with_suffix(".bin")))


def no_index(folder: Path):
    (folder / "model_index.json").unlink()


def absent_safety_checker(folder: Path):
    names = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    change(folder / "model_index.json", **names, requires_safety_checker=True)


def feature_extractor(folder: Path):
    """Add what the published SD 1.5 has, with a safety checker that is a pickle."""
    (folder / "feature_extractor").mkdir()
    settings = {"crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor"}
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "pytorch_model.bin").write_bytes(b"a pickle")
    extractor = {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    absent_safety_checker(folder)
    change(folder / "model_index.json", **extractor)


def sharded(folder: Path):
    for part in ("unet", "text_encoder"):
        file = folder / part / f"{WEIGHTS[part]}.safetensors"
        weights = sorted(load_file(file).items())
        weight_map = {}
        for number in (1, 2):
            name = f"{WEIGHTS[part]}-0000{number}-of-00002.safetensors"
            half = dict(weights[number - 1 :: 2])
            save_file(half, folder / part / name, {"format": "pt"})
            weight_map |= dict.fromkeys(half, name)
        file.unlink()
        index = {"metadata": {}, "weight_map": weight_map}
        file.with_suffix(".safetensors.index.json").write_text(json.dumps(index))


def scheduler(kind: type, **settings):
    def write(folder: Path):
        # as diffusers itself writes it, -Infinity and all
        kind.from_pretrained(folder / "scheduler", **settings).save_pretrained(folder / "scheduler")

    return write


def zero_snr(prediction: str):
    def write(folder: Path):
        file = folder / "scheduler" / CONFIGS["scheduler"]
        change(file, rescale_betas_zero_snr=True, timestep_spacing="trailing")
        change(file, prediction_type=prediction, _class_name="DDIMScheduler")

    return write


def inpainting(folder: Path):
    change(folder / "unet" / "config.json", in_channels=9)
    file = folder / "unet" / f"{WEIGHTS['unet']}.safetensors"
    weights = load_file(file) | {"conv_in.weight": torch.zeros(32, 9, 3, 3)}
    save_file(weights, file, {"format": "pt"})


TRAINED = {
    "fp16 files only": fp16_only,
    "no model_index.json": no_index,
    "a safety checker that is not there": absent_safety_checker,
    "a feature extractor and a pickled safety checker": feature_extractor,
    "sharded weights": sharded,
    "PNDM": scheduler(PNDMScheduler, skip_prk_steps=True),
    "Euler": scheduler(EulerDiscreteScheduler, use_karras_sigmas=True),
    "DPM": scheduler(DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++"),
    "zero terminal SNR for v": zero_snr("v_prediction"),
}
REFUSED = {
    ".bin only": (bin_only, "lacks unet/diffusion_pytorch_model.safetensors.*as safetensors"),
    "zero terminal SNR for eps": (zero_snr("epsilon"), "predicts epsilon.*zero terminal SNR"),
    "inpainting": (inpainting, "9 channels, 4 of latents and 5 of a mask"),
}


@pytest.fixture
def folder(tiny_base, tmp_path_factory, tmp_path) -> Path:
    """A tiny SD 1.x without a safety checker, that may be changed."""
    original = tmp_path_factory.getbasetemp() / "layout sd1"
    if not original.is_dir():
        tiny_base("sd1", original)
    return shutil.copytree(original, tmp_path / "base")


@pytest.fixture
def adapter_of(run_folder, train, one_thread) -> Callable[[Path], Path]:
    """Return a function that prepares on a base, trains a step, and returns the adapter."""

    def call(base: Path) -> Path:
        options = {"max_examples": 4, "resolution": 32, "num_processes": 1}
        run = prepare(Prepare(str(run_folder), base=str(base), **options)).run
        train(Train(str(run.folder), **STEP))
        return run.adapter

    return call


@pytest.mark.parametrize("layout", TRAINED)
def test_a_layout_leads_to_an_adapter_of_the_stock_pipeline(layout, folder, adapter_of):
    TRAINED[layout](folder)
    adapter = adapter_of(folder)
    assert load_file(next(adapter.glob("*.safetensors")))
    pipe = find_base(str(folder)).pipeline()
    pipe.load_lora_weights(adapter)
    assert pipe.get_active_adapters()


@pytest.mark.parametrize("layout", REFUSED)
def test_a_layout_that_cannot_be_used_gets_a_sentence(layout, folder, run_folder):
    write, message = REFUSED[layout]
    write(folder)
    with pytest.raises(BaseError, match=message) as refused:
        prepare(Prepare(str(run_folder), base=str(folder), max_examples=4, resolution=32))
    assert "\n" not in str(refused.value)


def as_snapshot(folder: Path, hub: Path) -> Path:
    """Lay a folder out as the hub's cache does, each file a relative link to a blob."""
    repository = hub / "models--some-one--tiny-sd"
    snapshot = repository / "snapshots" / REVISION
    (repository / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = file.rename(repository / "blobs" / f"{number:040x}")
        up = [".."] * (len(link.relative_to(repository).parts) - 1)
        link.symlink_to(Path(*up, "blobs", blob.name))
    return snapshot


def test_a_snapshot_of_links_leads_to_an_adapter(folder, adapter_of, tmp_path):
    snapshot = as_snapshot(folder, tmp_path / "hub")
    adapter = adapter_of(snapshot)
    assert DiffusionPipeline.from_pretrained(snapshot).load_lora_weights(adapter) is None
    assert find_base(str(snapshot)).title == "some-one/tiny-sd"


def test_a_link_out_of_a_base_is_not_followed(folder, tmp_path):
    outside = (folder / "vae" / "config.json").rename(tmp_path / "secret.json")
    (folder / "vae" / "config.json").symlink_to(outside)
    with pytest.raises(BaseError, match="vae/config.json is a link out of its folder"):
        find_base(str(folder))
    (folder / "vae" / "config.json").unlink()
    shutil.copy(outside, folder / "vae" / "config.json")
    (folder / "unet").rename(tmp_path / "unet")
    (folder / "unet").symlink_to(tmp_path / "unet")
    with pytest.raises(BaseError, match="unet is a link out of its folder"):
        find_base(str(folder))
    # of a snapshot, too: a link beyond the cache of its own repository
    (folder / "unet").unlink()
    shutil.copytree(tmp_path / "unet", folder / "unet")
    snapshot = as_snapshot(folder, tmp_path / "hub")
    (snapshot / "vae" / "config.json").unlink()
    (snapshot / "vae" / "config.json").symlink_to(outside)
    with pytest.raises(BaseError, match="link out of its folder"):
        find_base(str(snapshot))


def test_settings_without_a_limit_are_those_of_the_scheduler_alone(folder):
    scheduler(DPMSolverMultistepScheduler)(folder)
    assert "-Infinity" in (folder / "scheduler" / CONFIGS["scheduler"]).read_text()
    loaded = find_base(str(folder)).scheduler(DPMSolverMultistepScheduler)
    assert loaded.config.lambda_min_clipped == -float("inf")
    change(folder / "scheduler" / CONFIGS["scheduler"], beta_start=-float("inf"))
    with pytest.raises(BaseError, match="its scheduler cannot be used"):
        find_base(str(folder))
    change(folder / "scheduler" / CONFIGS["scheduler"], beta_start=0.00085)
    change(folder / "unet" / "config.json", norm_eps=float("inf"))
    with pytest.raises(BaseError, match="Infinity is no number"):
        find_base(str(folder))
