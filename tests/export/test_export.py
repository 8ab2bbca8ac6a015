"""A run's adapter in other programs: each export, loaded by a stock pipeline, draws what the run draws."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from huggingface_hub import ModelCard
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nbs_lib import export as room
from nbs_lib.compare import compare
from nbs_lib.compare.sampling.sampler import load_sampler
from nbs_lib.config import Compare
from nbs_lib.config.validation import ParameterError
from nbs_lib.export import ExportError, export, find_run
from nbs_lib.export.model_card import comparison_lines
from nbs_lib.files import ROOT, file_hash, value_hash
from nbs_lib.models import EMBEDDED, BaseError, find_base
from nbs_lib.models.consistency import check_unguided
from nbs_lib.models.lora import (
    ADAPTER_NAME,
    LORA_FILE,
    METADATA_FILE,
    METADATA_KEY,
    add_lora,
    save_adapter,
)
from nbs_lib.models.origin import front_matter
from nbs_lib.run.run import Run

RANK, ALPHA, W = 4, 8.0, 2.5
SAMPLE = "sample with guidance_scale=1; negative prompts have no effect"
KINDS = ("diffusers", "kohya", "merged")
PROMPTS, SEEDS, STEPS = ["A person holding a cat", "A road that is going down a hill"], [5, 6], 3
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
NAME_OF_RUN = "tïny run"


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread):
    """Pictures are sampled on one thread."""


def shaken(unet, scale: float):
    """The UNet with an adapter that changes pictures well beyond rounding, though nobody trained it."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return unet


def new_run(folder: Path, base) -> Run:
    """A run's folder with a cache and no adapter yet."""
    run = Run(folder)
    run.cache.mkdir(parents=True)
    (run.cache / "cache.json").write_text(
        json.dumps({"base": "embedded", "base_hash": base.hash, "resolution": 64})
    )
    run.update(stages={"train": {"status": "done", "outputs": {}}})
    return run


def facts_of(base) -> dict:
    return {
        "base": "embedded",
        "base_hash": base.hash,
        "w_train": W,
        "train": {"guidance_scale": W, "rank": RANK, "alpha": ALPHA},
    }


@pytest.fixture(scope="module")
def trained(base):
    """A UNet with its adapter, as training leaves it: rank and alpha differ."""
    unet = base.unet()
    add_lora(unet, RANK, ALPHA, seed=0)
    return shaken(unet, 0.1)


@pytest.fixture(scope="module")
def run(base, trained, tmp_path_factory) -> Run:
    """A compared run, in a path with spaces and letters beyond ASCII."""
    run = new_run(tmp_path_factory.mktemp("my rüns") / "outputs" / NAME_OF_RUN, base)
    save_adapter(run.adapter, trained, facts_of(base))
    compare(Compare(str(run.folder), prompts=PROMPTS, seeds=[3], steps=2, captions=10))
    return run


@pytest.fixture(scope="module")
def exported(run) -> dict[str, Path]:
    return {to: export(run.folder, to) for to in KINDS}


def weights_of(folder: Path) -> Path:
    """The one file of weights that an export's strength hangs on."""
    [file] = [
        path
        for path in folder.rglob("*.safetensors")
        if path.parent.name not in ("vae", "text_encoder")
    ]
    return file


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


STOCK = """
import json, sys
import numpy as np
import torch
from diffusers import StableDiffusionPipeline

base, out, prompts, seeds, steps, *exports = sys.argv[1:]
drawn = {}
for to, place in (each.split("=") for each in exports):
    pipe = StableDiffusionPipeline.from_pretrained(place if to == "merged" else base, safety_checker=None)
    if to != "merged":
        pipe.load_lora_weights(place)  # a folder, or kohya's file
    noise = [torch.Generator("cpu").manual_seed(seed) for seed in json.loads(seeds)]
    images = pipe(json.loads(prompts), num_inference_steps=int(steps), guidance_scale=1, generator=noise).images
    drawn[to] = np.stack([np.asarray(image) for image in images])
assert "nbs_lib" not in sys.modules
np.savez(out, **drawn)
"""


def test_each_export_draws_the_run_s_pictures_in_a_stock_pipeline(run, exported, tmp_path):
    places = exported | {"kohya": weights_of(exported["kohya"])}
    arguments = [EMBEDDED, tmp_path / "stock.npz", json.dumps(PROMPTS), json.dumps(SEEDS), STEPS]
    command = [
        sys.executable,
        "-c",
        STOCK,
        *map(str, arguments),
        *(f"{to}={place}" for to, place in places.items()),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sampler = load_sampler(run)
    unguided, tuned = (
        sampler.sample(sampler.resolver.resolve(name, STEPS), PROMPTS, SEEDS).images
        for name in ("unguided", "tuned")
    )
    assert apart(unguided, tuned) > 50
    with np.load(tmp_path / "stock.npz") as stock:
        assert {to: apart(stock[to], tuned) <= 1 for to in KINDS} == dict.fromkeys(KINDS, True)


def test_an_export_is_a_folder_in_the_run_with_its_card(run, exported):
    for to, folder in exported.items():
        assert folder == run.folder / "export" / to
        assert {path.name for path in folder.iterdir()} >= {"README.md", "onepass.json"}
    assert weights_of(exported["diffusers"]).name == LORA_FILE
    assert weights_of(exported["kohya"]).name == f"{NAME_OF_RUN}.safetensors"


def test_every_file_of_an_export_has_the_mode_of_its_card(exported):
    for folder in exported.values():
        modes = {path.stat().st_mode for path in folder.rglob("*") if path.is_file()}
        assert modes == {(folder / "README.md").stat().st_mode}


def test_a_kohya_layer_is_the_trained_change_of_its_weight(trained, exported):
    file = load_file(weights_of(exported["kohya"]))
    name = f"lora_unet_{LAYER.replace('.', '_')}"
    down, up, alpha = (
        file[f"{name}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha")
    )
    layer = trained.get_submodule(LAYER)
    change = layer.lora_B[ADAPTER_NAME].weight @ layer.lora_A[ADAPTER_NAME].weight * ALPHA / RANK
    assert (down.shape[0], float(alpha)) == (RANK, ALPHA) and change.abs().max() > 0.1
    torch.testing.assert_close(up @ down * alpha / RANK, change.detach(), atol=1e-6, rtol=1e-5)
    assert len(file) == 3 * len({key.partition(".")[0] for key in file})


def test_a_kohya_file_says_in_its_header_what_it_is(exported, base):
    with safe_open(weights_of(exported["kohya"]), "pt") as opened:
        said = opened.metadata()
    assert (said["ss_network_dim"], said["ss_network_alpha"], said["ss_sd_model_name"]) == (
        "4",
        "8",
        "embedded",
    )
    assert said["modelspec.title"] == NAME_OF_RUN and said["modelspec.usage_hint"] == SAMPLE
    assert json.loads(said[METADATA_KEY])["base_hash"] == base.hash


@pytest.mark.parametrize("to", KINDS)
def test_a_card_says_what_the_run_knows(run, exported, base, to):
    results = json.loads((run.compare / "results.json").read_text())
    card, told = (
        (exported[to] / "README.md").read_text(),
        json.loads((exported[to] / "onepass.json").read_text()),
    )
    rates = {
        name: round(100 * each["caption_first"]["rate"])
        for name, each in results["contenders"].items()
    }
    for words in (
        SAMPLE,
        base.hash,
        "embedded",
        "| objective | guidance |",
        "alpha = 8.0, guidance = 2.5, rank = 4",
        f"tuned {rates['tuned']} %",
    ):
        assert words in card, words
    assert (
        f"| {results['time_ratio']:.2f} |" in card
        and "unguided 2, guided 4, tuned 2 (2 steps, DDIMScheduler" in card
    )
    assert (told["base_hash"], told["w_train"], told["objective"]) == (base.hash, W, "guidance")
    assert told["compared"]["guidance_recovered"] == results["guidance_recovered"]
    assert told["compared"]["nfe"]["guided"] == 4 and told["train"]["alpha"] == ALPHA


def drawn(pipe, **how) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator("cpu").manual_seed(4)
    return pipe(PROMPTS[0], num_inference_steps=2, generator=noise, output_type="np", **how).images


def test_a_merged_export_is_not_guided_twice_by_stock_pipelines(exported, base):
    """At their default guidance scale, and in another of its family that is made of its parts."""
    pipe = StableDiffusionPipeline.from_pretrained(exported["merged"], safety_checker=None)
    once = drawn(pipe, guidance_scale=1)
    assert pipe.unet.config.time_cond_proj_dim and not pipe.do_classifier_free_guidance
    np.testing.assert_array_equal(drawn(pipe), once)
    assert not pipe.do_classifier_free_guidance
    other = StableDiffusionImg2ImgPipeline(**pipe.components)
    again = [
        drawn(other, image=once[0], strength=0.9, **how) for how in ({}, {"guidance_scale": 1})
    ]
    np.testing.assert_array_equal(*again)
    plain = StableDiffusionPipeline(
        **pipe.components | {"unet": base.unet()}, requires_safety_checker=False
    )
    assert np.abs(drawn(plain) - drawn(plain, guidance_scale=1)).mean() > 0.01, (
        "a plain UNet is guided by default"
    )


def test_a_merged_export_can_be_compared_again(exported, run):
    """As another pipeline; nothing is learned from it, because it holds its guidance."""
    sampler = load_sampler(run)
    tuned, merged = (
        sampler.sample(sampler.resolver.resolve(name, STEPS), PROMPTS, SEEDS)
        for name in ("tuned", f"pipeline {exported['merged']}")
    )
    assert apart(tuned.images, merged.images) <= 1 and merged.nfe == STEPS
    check_unguided(base := find_base("embedded"))
    with pytest.raises(BaseError, match="holds its guidance already"):
        check_unguided(find_base(str(exported["merged"])))
    assert base.hash


def metadata_of(card: str) -> dict:
    """As the hub reads it."""
    return ModelCard(card, ignore_metadata_errors=False).data.to_dict()


@pytest.mark.parametrize("to", KINDS)
def test_the_first_line_of_a_card_says_how_to_guide(exported, to):
    text = ModelCard((exported[to] / "README.md").read_text()).text.strip().splitlines()
    assert text[0] == f"# {NAME_OF_RUN}"
    assert text[2].startswith("**Sample with `guidance_scale=1`") and "guides twice" in text[2]


@pytest.mark.parametrize("to", KINDS)
def test_the_hub_reads_a_card_s_metadata(exported, base, run, to):
    told = metadata_of((exported[to] / "README.md").read_text())
    assert (told["library_name"], told["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert ("lora" in told["tags"]) == (to != "merged") and {"text-to-image", "guidance"} <= set(
        told["tags"]
    )
    assert "base_model" not in told, (
        "of the embedded base, the hub would link to another repository"
    )


@pytest.mark.parametrize(
    "origin, license, wanted",
    [
        (
            "a/base@0123456789abcdef",
            {"license": "openrail++"},
            {"base_model": "a/base", "license": "openrail++"},
        ),
        (
            "a/base@main",
            {"license": "other", "license_name": "its own"},
            {"base_model": "a/base", "license_name": "its own"},
        ),
        ("my folder", {}, {"license": "unknown"}),
        ("my: [folder]\n---\n@x", {"license": "mit"}, {"license": "mit"}),
        ("embedded", {"license": "mit"}, {"license": "mit"}),
    ],
)
def test_a_card_links_to_bases_of_the_hub_alone(base, trained, tmp_path, origin, license, wanted):
    facts = facts_of(base) | {"base": origin, "base_origin": origin, "base_license": license}
    for relation in ("adapter", "finetune"):
        told = metadata_of(front_matter(facts, ["lora", "a: b"], relation) + "\n# A card\n")
        assert {name: told.get(name) for name in wanted} == wanted and told["tags"] == [
            "lora",
            "a: b",
        ]
        assert told.get("base_model_relation") == (relation if "base_model" in wanted else None)
        assert ("base_model" in told) == ("base_model" in wanted)


def test_the_card_says_which_export_is_for_which_program(exported):
    for to in KINDS:
        card = (exported[to] / "README.md").read_text()
        assert (
            "`kohya` for ComfyUI, A1111 and sd-scripts" in card and "`lora key not loaded`" in card
        )
        assert "does not load" not in card, "all programs load all layers of this adapter"


def test_an_export_says_which_program_misses_which_layers(base, tmp_path):
    """Of adapters of other programs, and of those that were trained when `all` was on every layer."""
    run = new_run(tmp_path / "old", base)
    other_adapter(run, base)
    out = export(run.folder, "kohya", tmp_path / "out")
    card, told = (out / "README.md").read_text(), json.loads((out / METADATA_FILE).read_text())
    assert told["layers_missed"] == {"sd-scripts": ["conv_out"]}
    assert (
        "sd-scripts does not load 1 of this adapter's layers (`conv_out`)" in card
        and "--to merged" in card
    )
    command = [sys.executable, "-m", "nbs_lib", "export", run.folder, "--to", "kohya", "--out", out]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (
        done.returncode == 0
        and "sd-scripts does not load 1 of" in done.stderr
        and "**" not in done.stderr
    )
    assert "does not load" not in (export(run.folder, "merged") / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_pictures_that_are_no_numbers_are_not_exported(trained, tmp_path):
    """Of a base whose weights are numbers, with products beyond fp32."""
    folder = shutil.copytree(EMBEDDED, tmp_path / "base")
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = {name: value.float() for name, value in load_file(vae).items()}
    save_file(
        weights | {"post_quant_conv.weight": weights["post_quant_conv.weight"].sign() * 3e38},
        vae,
        {"format": "pt"},
    )
    base = find_base(str(folder))
    run = new_run(tmp_path / "run", base)
    save_adapter(run.adapter, trained, facts_of(base))
    (run.cache / "cache.json").write_text(
        json.dumps({"base": base.name, "base_hash": base.hash, "resolution": 64})
    )
    for to in ("kohya", "merged"):
        with pytest.raises(ExportError, match="no numbers .NaN. on base"):
            export(run.folder, to)
    assert not (run.folder / "export").exists()


def test_an_export_names_no_place_of_this_machine(run, exported):
    for path in exported["merged"].rglob("*.json"):
        assert str(ROOT) not in path.read_text() and str(run.folder) not in path.read_text(), path


def test_numbers_of_an_earlier_adapter_are_left_out(base, trained, tmp_path):
    run = new_run(tmp_path / "again", base)
    save_adapter(run.adapter, trained, facts_of(base))
    run.compare.mkdir()
    (run.compare / "results.json").write_text("{}")
    stages = {
        "train": {"status": "done", "outputs": {"adapter": "new"}},
        "compare": {"status": "done", "inputs": {"train": "old"}},
    }
    run.update(stages=stages)
    folder = export(run.folder, "diffusers")
    assert json.loads((folder / "onepass.json").read_text())["compared"] is None
    assert "time of tuned" not in (folder / "README.md").read_text()


def test_numbers_of_another_adapter_that_was_put_in_its_place_are_left_out(run, tmp_path):
    other = Run(shutil.copytree(run.folder, tmp_path / "other", symlinks=True))
    for digest in (file_hash(other.adapter / LORA_FILE), "0" * 64):
        outputs = {f"adapter/{LORA_FILE}": digest}
        other.update_stage("train", status="done", outputs=outputs)
        other.update_stage("compare", status="done", inputs={"train": value_hash(outputs)})
        assert (comparison_lines(other) is None) == (digest == "0" * 64)


def test_weights_that_are_no_numbers_are_refused(run, tmp_path):
    other = Run(shutil.copytree(run.folder, tmp_path / "other", symlinks=True))
    file = bytearray((other.adapter / LORA_FILE).read_bytes())
    file[-4:] = b"\xff\xff\xff\xff"
    (other.adapter / LORA_FILE).write_bytes(file)
    with pytest.raises(ExportError, match="weights that are not numbers"):
        export(other.folder, "diffusers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("targets", ["(a+)+$", ".*to_q"])
def test_an_adapter_whose_layers_are_a_regular_expression_is_refused(
    base, trained, tmp_path, targets
):
    run = new_run(tmp_path / "run", base)
    file = save_adapter(run.adapter, trained, facts_of(base))
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    settings = json.loads(metadata["lora_adapter_metadata"]) | {"unet.target_modules": targets}
    save_file(load_file(file), file, metadata | {"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(ExportError, match="target_modules are no list of plain layer names"):
        export(run.folder, "diffusers")
    assert not (run.folder / "export").exists()


def other_adapter(run: Run, base, **config) -> dict[str, torch.Tensor]:
    """Give the run an adapter as another program saves it: its scale in the header. Its weights by their peft names."""
    unet = base.unet()
    targets = [
        "to_q",
        "conv1",
        "conv_shortcut",
        "time_emb_proj",
        "proj_in",
        "ff.net.0.proj",
        "downsamplers.0.conv",
        "conv_out",
    ]
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=targets, init_lora_weights="gaussian", **config
    )
    unet.add_adapter(config, adapter_name=ADAPTER_NAME)
    weights = get_peft_model_state_dict(shaken(unet, 0.05), adapter_name=ADAPTER_NAME)
    facts = facts_of(base)
    del facts["train"]
    plain = {
        f"unet.{key}": sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()
    }
    metadata = {
        "lora_adapter_metadata": json.dumps(plain, default=str),
        METADATA_KEY: json.dumps(facts),
    }
    run.adapter.mkdir()
    save_file(
        {f"unet.{key}": value.contiguous() for key, value in weights.items()},
        run.adapter / LORA_FILE,
        metadata,
    )
    return weights


def test_kohya_is_right_where_layers_differ_in_rank_and_alpha_and_for_convolutions(base, tmp_path):
    run = new_run(tmp_path / "other", base)
    weights = other_adapter(
        run, base, rank_pattern={"conv1": 3, "to_q": 2}, alpha_pattern={"conv1": 9, "to_q": 5}
    )
    file = load_file(weights_of(export(run.folder, "kohya", tmp_path / "out")))
    assert {float(value) for key, value in file.items() if key.endswith(".alpha")} == {
        6.0
    }  # of most layers
    attention = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    for layer, rank, alpha in (
        ("down_blocks.0.resnets.0.conv1", 3, 9),
        (attention, 2, 5),
        ("conv_out", 4, 6),
    ):
        down, up = (weights[f"{layer}.lora_{part}.weight"] for part in "AB")
        name = f"lora_unet_{layer.replace('.', '_')}"
        own_down, own_up, own_alpha = (
            file[f"{name}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha")
        )
        assert (
            own_down.shape == down.shape and own_up.shape == up.shape and own_down.shape[0] == rank
        )
        change, own_change = (
            up.flatten(1) @ down.flatten(1) * alpha / rank,
            own_up.flatten(1) @ own_down.flatten(1),
        )
        torch.testing.assert_close(own_change * own_alpha / rank, change, atol=1e-6, rtol=1e-5)
    assert file["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"].shape == (3, 64, 3, 3)
    with safe_open(weights_of(tmp_path / "out"), "pt") as opened:
        assert opened.metadata()["ss_network_dim"] == "Dynamic"


def test_a_dora_goes_to_diffusers_and_merged_and_is_refused_by_kohya(base, tmp_path):
    run = new_run(tmp_path / "dora", base)
    other_adapter(run, base, use_dora=True)
    for to in ("diffusers", "merged"):
        export(run.folder, to, tmp_path / to)
    with pytest.raises(ExportError, match="DoRA.*export it to diffusers or merged"):
        export(run.folder, "kohya")
    assert not (run.folder / "export").exists()


def tamper(monkeypatch, to: str):
    """From now on, what is written is damaged before it is checked: one tensor is scaled."""
    write = room.WRITERS[to]

    def tampered(part, source):
        write(part, source)
        file = weights_of(part)
        weights = load_file(file)
        layer = LAYER.replace(".", "_")
        key = next(
            key for key in weights if layer in key.replace(".", "_") and key.endswith("weight")
        )
        save_file(weights | {key: weights[key] * 30}, file, {"format": "pt"})

    monkeypatch.setitem(room.WRITERS, to, tampered)


@pytest.mark.parametrize(
    ("objective", "sampling", "said"),
    [
        (
            "consistency",
            {"guidance_scale": 1.0, "scheduler": "LCMScheduler", "steps": 4},
            "LCMScheduler and guidance_scale=1",
        ),
        (
            "finetune",
            {"guidance_scale": 3.0, "scheduler": "DDIMScheduler", "steps": None},
            "like its base, with guidance",
        ),
    ],
)
def test_an_export_is_checked_and_described_as_its_objective_is_sampled(
    base, trained, tmp_path, objective, sampling, said
):
    run = new_run(tmp_path / objective, base)
    save_adapter(
        run.adapter, trained, facts_of(base) | {"objective": objective, "sampling": sampling}
    )
    for to in KINDS:
        card = (export(run.folder, to) / "README.md").read_text()
        assert said in card and objective in card
        assert to == "kohya" or (
            sampling["scheduler"] in card
            and f"guidance_scale={sampling['guidance_scale']:g}" in card
        )


def test_a_whole_model_is_an_export_already(base, tmp_path):
    run = new_run(tmp_path / "full", base)
    (run.model).mkdir()
    (run.model / METADATA_FILE).write_text("{}")
    with pytest.raises(ExportError, match="is a whole pipeline already"):
        export(run.folder, "merged")


@pytest.mark.parametrize("to", KINDS)
def test_an_export_that_draws_other_pictures_is_refused_and_leaves_nothing(
    base, trained, tmp_path, monkeypatch, to
):
    run = new_run(tmp_path / "run", base)
    save_adapter(run.adapter, trained, facts_of(base))
    before = sorted(tmp_path.rglob("*"))
    tamper(monkeypatch, to)
    for out in (None, tmp_path / "deep" / "export"):
        with pytest.raises(ExportError, match=r"they differ by up to \d+ of 255, allowed is 1"):
            export(run.folder, to, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_earlier_export_is_replaced_whole_or_kept(run, tmp_path, monkeypatch):
    folder = export(run.folder, "diffusers", tmp_path / "my ëxport")
    (folder / "README.md").write_text("old")
    export(run.folder, "diffusers", folder)
    assert SAMPLE in (folder / "README.md").read_text()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tamper(monkeypatch, "diffusers")
    with pytest.raises(ExportError, match="they differ"):
        export(run.folder, "diffusers", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_run_is_found_by_its_name_or_its_folder(run, monkeypatch):
    monkeypatch.setattr(room, "ROOT", run.folder.parent.parent)
    assert find_run(NAME_OF_RUN).folder == find_run(run.folder).folder == run.folder
    with pytest.raises(ParameterError, match=f"outputs/ .there is {NAME_OF_RUN}. or its folder"):
        find_run("cache")


def test_what_an_export_would_take_away_is_kept(run, tmp_path):
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "mine.safetensors").write_text("mine")
    with pytest.raises(ExportError, match="holds 'mine.safetensors'"):
        export(run.folder, "kohya", tmp_path / "loras")
    with pytest.raises(ExportError, match="is a file"):
        export(run.folder, "kohya", tmp_path / "loras" / "mine.safetensors")
    with pytest.raises(ExportError, match="would replace"):
        export(run.folder, "kohya", run.folder)
    assert (tmp_path / "loras" / "mine.safetensors").read_text() == "mine" and run.adapter.is_dir()


def test_what_cannot_be_exported_is_said(base, trained, tmp_path):
    with pytest.raises(ParameterError, match="given 'absent'; allowed is a run in outputs/"):
        export("absent", "kohya")
    run = new_run(tmp_path / "run", base)
    with pytest.raises(
        ParameterError, match="given 'ckpt'; allowed is one of diffusers, kohya, merged"
    ):
        export(run.folder, "ckpt")
    with pytest.raises(FileNotFoundError, match="2_train"):
        export(run.folder, "kohya")
    save_adapter(run.adapter, trained, facts_of(base) | {"base_hash": "0123456789abcdef" * 4})
    with pytest.raises(BaseError, match="was trained on .* with hash 0123456789abcdef"):
        export(run.folder, "kohya")
    (run.adapter / LORA_FILE).write_bytes(b"half")
    with pytest.raises(ExportError, match="cannot be exported"):
        export(run.folder, "kohya")
    assert not (run.folder / "export").exists()


def test_the_command_ends_with_the_place_of_the_export_and_nothing_else(run, tmp_path):
    out = tmp_path / "für später"
    command = [
        sys.executable,
        "-m",
        "nbs_lib",
        "export",
        run.folder,
        "--to",
        "merged",
        "--out",
        out.name,
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"export: {out}\n", "")
    assert weights_of(out).is_file() and (out / "model_index.json").is_file()


COMMANDS = """
import json, sys
from nbs_lib.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["onepass", "export", *arguments]
    try:
        main()
    except SystemExit as end:
        print(end.code)
"""


def test_a_command_that_cannot_export_says_one_sentence(base, tmp_path, python):
    untrained = str(new_run(tmp_path / "untrained", base).folder)
    expected = [
        (["absent", "--to", "kohya"], "2", "given 'absent'; allowed is a run in outputs/"),
        ([untrained, "--to", "kohya"], "1", "train an adapter first"),
        (
            [untrained, "--to", "ckpt"],
            "2",
            "given 'ckpt'; allowed is one of diffusers, kohya, merged",
        ),
    ]
    done = python(COMMANDS, json.dumps([arguments for arguments, _, _ in expected]))
    assert done.stdout.split() == [code for _, code, _ in expected]
    for line, (_, _, said) in zip(done.stderr.splitlines(), expected, strict=True):
        assert line.startswith("onepass: ") and said in line
