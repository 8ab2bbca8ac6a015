"""Bases in one file: converted through diffusers' loader, and refused in a sentence."""

import json
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from single_files import tiny_settings, write_single_file

from nbs_lib.models import (
    BaseError,
    StableDiffusion,
    StableDiffusion3,
    StableDiffusionXL,
    find_base,
)
from nbs_lib.models.checks.weight_shapes import build_without_weights
from nbs_lib.models.loading import check_hub_access
from nbs_lib.models.single_file import convert
from nbs_lib.models.single_file.kinds import PROBE

STAGE = """
import json, sys
from pathlib import Path
from nbs_lib.models.single_file import convert

convert.SETTINGS, convert.STORE = map(Path, sys.argv[1:3])
from nbs_lib.config import Prepare, Train
from nbs_lib.prepare import prepare
from nbs_lib.train import train

options = json.loads(sys.argv[4])
if sys.argv[3] == "prepare":
    prepare(Prepare(**options))
else:
    train(Train(**options))
"""
FAMILIES = {"sd1": StableDiffusion, "sd2": StableDiffusion, "sdxl": StableDiffusionXL}
FLOWS = ("sd3", "sd35-medium", "sd35-large")
SHIPPED = convert.SETTINGS
# Published counts of parameters.
PUBLISHED = {
    ("sd1", "unet"): 859_520_964,
    ("sd1", "vae"): 83_653_863,
    ("sd1", "text_encoder"): 123_060_480,
    ("sd2", "unet"): 865_910_724,
    ("sd2", "text_encoder"): 340_387_840,
    ("sdxl", "unet"): 2_567_463_684,
    ("sdxl", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder_2"): 694_659_840,
    ("sd3", "transformer"): 2_028_328_000,
    ("sd35-medium", "transformer"): 2_243_171_520,
    ("sd35-large", "transformer"): 8_056_627_520,
}


def class_of(settings: Path, part: str) -> type:
    library, name = json.loads((settings / "model_index.json").read_text())[part]
    return getattr({"diffusers": diffusers, "transformers": transformers}[library], name)


def settings_of(kind: Path, part: str) -> dict:
    return json.loads((kind / part / "config.json").read_text())


@pytest.mark.parametrize("kind, part", PUBLISHED)
def test_the_shipped_settings_are_those_of_the_published_models(kind, part):
    settings = settings_of(SHIPPED / kind, part)
    model = build_without_weights(class_of(SHIPPED / kind, part), settings, 10_000)
    assert sum(weight.numel() for weight in model.parameters()) == PUBLISHED[kind, part]


@pytest.fixture(scope="module")
def tiny_kinds(tmp_path_factory) -> dict[str, Path]:
    """A folder with random weights for each kind, in the shape of small settings."""
    place = tmp_path_factory.mktemp("kinds")
    settings = tiny_settings(SHIPPED, place / "settings", [*FAMILIES, *FLOWS])
    for kind in [*FAMILIES, *FLOWS]:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            for part in ("unet", "transformer", "vae", "text_encoder", "text_encoder_2"):
                if (settings / kind / part).is_dir():
                    cls = class_of(settings / kind, part)
                    values = settings_of(settings / kind, part)
                    if part.startswith("text"):
                        model = cls(transformers.CLIPTextConfig(**values))
                    else:
                        model = cls.from_config(values)
                    model.save_pretrained(place / kind / part)
    return {"settings": settings, **{kind: place / kind for kind in [*FAMILIES, *FLOWS]}}


@pytest.fixture(params=FAMILIES)
def kind(request) -> str:
    return request.param


@pytest.fixture
def store(tiny_kinds, tmp_path, monkeypatch) -> Path:
    """The folder of converted bases, for files of small settings."""
    monkeypatch.setattr(convert, "SETTINGS", tiny_kinds["settings"])
    monkeypatch.setattr(convert, "STORE", tmp_path / "bases")
    return tmp_path / "bases"


def test_a_single_file_has_the_weights_of_its_folder(tiny_kinds, store, tmp_path, kind):
    file = write_single_file(tiny_kinds[kind], kind, tmp_path / "my model.safetensors")
    base = find_base(str(file))
    assert type(base) is FAMILIES[kind] and base.prediction_type == "epsilon"
    for part in sorted(path.name for path in tiny_kinds[kind].iterdir()):
        # the same class reads the original folder
        expected = class_of(tiny_kinds["settings"] / kind, part).from_pretrained(
            tiny_kinds[kind] / part
        )
        model = base.denoiser() if part == "unet" else getattr(base, part)()
        loaded = model.state_dict()
        assert loaded.keys() == expected.state_dict().keys()
        for name, weight in expected.state_dict().items():
            assert torch.equal(loaded[name], weight), name
    pipe = DiffusionPipeline.from_pretrained(base.folder)
    assert type(pipe) is base.pipeline_class
    ids = base.tokenizer()("a photo of a cat").input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407], "CLIP's own"


@pytest.mark.parametrize("kind", FLOWS)
def test_a_single_file_of_sd_3_is_a_folder_of_the_stock_pipeline(tiny_kinds, store, tmp_path, kind):
    file = write_single_file(tiny_kinds[kind], kind, tmp_path / "flow.safetensors")
    base = find_base(str(file))
    folder = base.folder
    assert type(base) is StableDiffusion3 and not base.has_t5
    assert len([path for path in store.iterdir() if path.is_dir()]) == 1
    assert (folder / "scheduler").is_dir() and not (folder / "text_encoder_3").exists()
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        cls = class_of(tiny_kinds["settings"] / kind, part)
        expected = cls.from_pretrained(tiny_kinds[kind] / part).state_dict()
        loaded = cls.from_pretrained(folder / part).state_dict()
        assert loaded.keys() == expected.keys()
        for name, weight in expected.items():
            if part == "text_encoder" and name == "text_projection.weight":
                weight = torch.eye(len(weight))
            assert torch.equal(loaded[name], weight), name
    # without a T5, as the stock pipeline has to be asked
    pipe = DiffusionPipeline.from_pretrained(folder, **base.load_options)
    assert type(pipe).__name__ == "StableDiffusion3Pipeline"
    assert pipe.scheduler.config.shift == 3 and pipe.text_encoder_3 is None


def test_a_file_with_t5_is_a_base_without_and_says_so(tiny_kinds, store, tmp_path, capsys):
    file = write_single_file(tiny_kinds[FLOWS[0]], FLOWS[0], tmp_path / "flow.safetensors")
    weights = load_file(file) | {"text_encoders.t5xxl.transformer.shared.weight": torch.ones(2, 2)}
    save_file(weights, file, {"format": "pt"})
    assert not find_base(str(file)).has_t5
    assert "without its T5, once for all runs" in capsys.readouterr().out


def test_a_file_is_converted_once_for_each_state_and_alike(tiny_kinds, store, tmp_path, capsys):
    file = write_single_file(tiny_kinds["sd1"], "sd1", tmp_path / "model.safetensors")
    first = find_base(str(file))
    assert "converted to" in capsys.readouterr().out
    again = find_base(str(file))
    assert again.folder == first.folder and not capsys.readouterr().out
    weights = load_file(file)
    copy = tmp_path / "renamed.safetensors"
    save_file(weights, copy, {"format": "pt"})
    assert find_base(str(copy)).hash == first.hash, "the same weights are the same base"
    weights["model.diffusion_model.out.2.bias"] += 1
    save_file(weights, file, {"format": "pt"})
    assert find_base(str(file)).hash != first.hash


def test_weights_keep_the_type_of_their_file(tiny_kinds, store, tmp_path):
    file = write_single_file(tiny_kinds["sd1"], "sd1", tmp_path / "half.safetensors")
    weights = load_file(file)
    for name, weight in weights.items():
        if name.startswith("model.diffusion_model."):
            weights[name] = weight.half()
        elif name.startswith("first_stage_model."):
            weights[name] = weight.bfloat16()
    save_file(weights, file, {"format": "pt"})
    folder = find_base(str(file)).folder
    stored = {
        part: {weight.dtype for weight in load_file(next((folder / part).glob("*.saf*"))).values()}
        for part in ("unet", "vae", "text_encoder")
    }
    assert stored == {
        "unet": {torch.float16},
        "vae": {torch.bfloat16},
        "text_encoder": {torch.float32},
    }


def with_metadata(file: Path, metadata: dict[str, str], **more: torch.Tensor) -> Path:
    save_file(load_file(file) | more, file, {"format": "pt", **metadata})
    return file


def test_the_prediction_comes_from_names_metadata_or_the_weights(tiny_kinds, store, tmp_path):
    xl = write_single_file(tiny_kinds["sdxl"], "sdxl", tmp_path / "xl.safetensors")
    assert find_base(str(xl)).prediction_type == "epsilon"
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    scheduler = find_base(str(with_metadata(xl, {}, **marks))).scheduler()
    assert scheduler.config.prediction_type == "v_prediction"
    assert scheduler.alphas_cumprod[-1] == 0 and scheduler.config.timestep_spacing == "trailing"
    two = write_single_file(tiny_kinds["sd2"], "sd2", tmp_path / "two.safetensors")
    probe = torch.zeros(32)
    for value, metadata, prediction in (
        (0.0, {}, "epsilon"),
        (0.2, {}, "v_prediction"),
        (0.2, {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        (0.0, {"modelspec.predict_key": "v"}, "v_prediction"),
    ):
        probe[::2] = value
        # the small UNet has no such block, so it only decides
        file = with_metadata(two, metadata, **{PROBE: probe})
        assert find_base(str(file)).prediction_type == prediction


@pytest.mark.parametrize(
    "leave_out, more, facts",
    [
        ("first_stage_model.", {}, "lacks its vae"),
        ("cond_stage_model.", {}, "lacks its text_encoder"),
        ("model.diffusion_model.", {}, "lacks its unet"),
        ("model.diffusion_model.out.2", {}, "unet is not that of SD 1.x .*weights are missing"),
        ("", {"control_model.x": 1}, "is a ControlNet"),
        ("", {"lora_unet_down.alpha": 1}, "is a LoRA"),
        ("", {"model.diffusion_model.double_blocks.0.x": 1}, "is a FLUX"),
        ("", {"conditioner.embedders.0.model.x": 1}, "is an SDXL refiner"),
        ("", {"edm_mean": 1}, "noise levels of EDM"),
        ("", {"model.diffusion_model.input_blocks.0.0.weight": 9}, "9 channels.* of a mask"),
        ("", {"model.diffusion_model.out.2.bias": 7}, "unet is not that of SD 1.x"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tiny_kinds, store, tmp_path, leave_out, more, facts):
    """`more` has the number of channels of another tensor by its name."""
    tensors = {
        name: torch.zeros(32, channels, 3, 3) if "input_blocks" in name else torch.zeros(channels)
        for name, channels in more.items()
    }
    path = tmp_path / "other.safetensors"
    file = write_single_file(tiny_kinds["sd1"], "sd1", path, leave_out, **tensors)
    with pytest.raises(BaseError, match=facts) as refused:
        find_base(str(file))
    assert str(file) in str(refused.value)
    assert not [path for path in store.glob("*") if path.is_dir()], "nothing half-written"


def test_quantised_and_damaged_files_are_refused(tiny_kinds, store, tmp_path):
    file = write_single_file(tiny_kinds["sd1"], "sd1", tmp_path / "model.safetensors")
    name = "model.diffusion_model.out.2.weight"
    save_file(load_file(file) | {name: torch.zeros(4).to(torch.float8_e4m3fn)}, file)
    with pytest.raises(BaseError, match="unet has weights of type F8_E4M3"):
        find_base(str(file))
    save_file({f"x.{number}": torch.zeros(1) for number in range(10_001)}, file)
    with pytest.raises(BaseError, match="has 10001 weights, allowed are 10000"):
        find_base(str(file))
    file.write_bytes(b"weights")
    with pytest.raises(BaseError, match="cannot be read"):
        find_base(str(file))


@pytest.mark.parametrize("name", ["sd.ckpt", "sd.pt", "sd.bin"])
def test_a_pickle_is_refused_unopened(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"weights")
    with pytest.raises(BaseError, match="is a pickle, which could run any code.*safetensors"):
        find_base(str(file))
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(BaseError, match="a file and no base"):
        find_base(str(tmp_path / "notes.md"))


def test_a_missing_file_is_no_hub_id(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("models/absent.safetensors", "models/absent.ckpt"):
        assert check_hub_access(name) is False
        with pytest.raises(BaseError, match="there is no such file"):
            find_base(name)
        with pytest.raises(BaseError, match="revision"):
            find_base(name, "main")


@pytest.mark.slow
def test_a_single_file_leads_to_an_adapter(tiny_kinds, store, tmp_path, run_folder, python):
    file = write_single_file(tiny_kinds["sdxl"], "sdxl", tmp_path / "my model.safetensors")
    # processes of their own, as the notebooks have
    for stage, options in {
        "prepare": {"base": str(file), "max_examples": 4, "resolution": 32, "num_processes": 1},
        "train": {
            **{"steps": 1, "batch_size": 2, "rank": 2, "num_processes": 1},
            **{"validation_steps": 0, "mixed_precision": "fp32", "deepspeed": False},
        },
    }.items():
        options = json.dumps({"run": str(run_folder), **options})
        done = python(STAGE, tiny_kinds["settings"], store, stage, options)
        assert done.returncode == 0, done.stderr
    [folder] = [path for path in store.iterdir() if path.is_dir()]
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.load_lora_weights(run_folder / "adapter")
    assert pipe.get_active_adapters()
    metadata = json.loads((run_folder / "run.json").read_text())["stages"]["prepare"]
    assert metadata["base"] == str(file), "the name that the user gave"
