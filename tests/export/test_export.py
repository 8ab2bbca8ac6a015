"""Exports of a run: each, loaded by a stock pipeline, draws what the run draws."""

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

from nbs_lib.compare import compare
from nbs_lib.compare.sampling.sampler import load_sampler
from nbs_lib.config import Compare
from nbs_lib.config.validation import ParameterError
from nbs_lib.export import ExportError, export, exporter
from nbs_lib.export.model_card import comparison_results
from nbs_lib.files import ROOT, file_hash, value_hash
from nbs_lib.models import EMBEDDED, BaseError, find_base
from nbs_lib.models.consistency import check_unguided
from nbs_lib.models.lora.layers import ADAPTER_NAME, add_lora
from nbs_lib.models.lora.metadata import LORA_FILE, METADATA_FILE, METADATA_KEY
from nbs_lib.models.lora.saving import save_adapter
from nbs_lib.models.origin import front_matter
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

RANK, ALPHA, W = 4, 8.0, 2.5
SAMPLE = "sample with guidance_scale=1; negative prompts have no effect"
KINDS = ("diffusers", "kohya", "merged")
PROMPTS, SEEDS, STEPS = ["A person holding a cat", "A road that is going down a hill"], [5, 6], 3
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
NAME_OF_RUN = "tïny run"


@pytest.fixture(scope="module", autouse=True)
def single_threaded(one_thread):
    """Pictures are sampled on one thread."""


def randomized(unet, scale: float):
    """Return the UNet with an untrained adapter that changes pictures well beyond rounding."""
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
        json.dumps({"base": "embedded", "base_hash": base.hash, "resolution": 128})
    )
    run.update(stages={"train": {"status": "done", "outputs": {}}})
    return run


def adapter_facts(base) -> dict:
    return {
        "base": "embedded",
        "base_hash": base.hash,
        "w_train": W,
        "train": {"guidance_scale": W, "rank": RANK, "alpha": ALPHA},
    }


@pytest.fixture(scope="module")
def trained(base):
    """A UNet with its adapter, as training leaves it: rank and alpha differ."""
    unet = base.denoiser()
    add_lora(unet, RANK, ALPHA, seed=0)
    return randomized(unet, 0.1)


@pytest.fixture(scope="module")
def run(base, trained, tmp_path_factory) -> Run:
    """A compared run, in a path with spaces and letters beyond ASCII."""
    run = new_run(tmp_path_factory.mktemp("my rüns") / "outputs" / NAME_OF_RUN, base)
    save_adapter(run.adapter, trained, adapter_facts(base))
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


def max_difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


STOCK = """
import json, sys
import numpy as np
import torch
from diffusers import StableDiffusionPipeline

base, out, prompts, seeds, steps, *exports = sys.argv[1:]
drawn = {}
for to, place in (each.split("=") for each in exports):
    source = place if to == "merged" else base
    pipe = StableDiffusionPipeline.from_pretrained(source, safety_checker=None)
    if to != "merged":
        pipe.load_lora_weights(place)  # a folder, or kohya's file
    noise = [torch.Generator("cpu").manual_seed(seed) for seed in json.loads(seeds)]
    options = {"num_inference_steps": int(steps), "guidance_scale": 1, "generator": noise}
    images = pipe(json.loads(prompts), **options).images
    drawn[to] = np.stack([np.asarray(image) for image in images])
assert "nbs_lib" not in sys.modules
np.savez(out, **drawn)
"""


def test_stock_pipeline_draws_the_run_s_pictures(run, exported, tmp_path):
    paths = exported | {"kohya": weights_of(exported["kohya"])}
    arguments = [EMBEDDED, tmp_path / "stock.npz", json.dumps(PROMPTS), json.dumps(SEEDS), STEPS]
    command = [
        sys.executable,
        "-c",
        STOCK,
        *map(str, arguments),
        *(f"{to}={path}" for to, path in paths.items()),
    ]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    sampler = load_sampler(run)
    unguided, tuned = (
        sampler.sample(sampler.resolver.resolve(name, STEPS), PROMPTS, SEEDS).images
        for name in ("unguided", "tuned")
    )
    assert max_difference(unguided, tuned) > 50
    with np.load(tmp_path / "stock.npz") as stock:
        assert {to: max_difference(stock[to], tuned) <= 1 for to in KINDS} == dict.fromkeys(
            KINDS, True
        )


def test_export_is_a_folder_in_the_run(run, exported):
    for to, folder in exported.items():
        assert folder == run.folder / "export" / to
        assert {path.name for path in folder.iterdir()} >= {"README.md", "onepass.json"}
    assert weights_of(exported["diffusers"]).name == LORA_FILE
    assert weights_of(exported["kohya"]).name == f"{NAME_OF_RUN}.safetensors"


def test_files_of_an_export_have_the_same_mode(exported):
    for folder in exported.values():
        modes = {path.stat().st_mode for path in folder.rglob("*") if path.is_file()}
        assert modes == {(folder / "README.md").stat().st_mode}


def test_kohya_layer_is_the_trained_weight_change(trained, exported):
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


def test_kohya_header(exported, base):
    with safe_open(weights_of(exported["kohya"]), "pt") as opened:
        header = opened.metadata()
    assert (header["ss_network_dim"], header["ss_network_alpha"], header["ss_sd_model_name"]) == (
        "4",
        "8",
        "embedded",
    )
    assert header["modelspec.title"] == NAME_OF_RUN and header["modelspec.usage_hint"] == SAMPLE
    assert json.loads(header[METADATA_KEY])["base_hash"] == base.hash


@pytest.mark.parametrize("to", KINDS)
def test_card_holds_the_run_s_results(run, exported, base, to):
    results = json.loads((run.compare / "results.json").read_text())
    card, values = (
        (exported[to] / "README.md").read_text(),
        json.loads((exported[to] / "onepass.json").read_text()),
    )
    rates = {
        name: round(100 * contender["caption_first"]["rate"])
        for name, contender in results["contenders"].items()
    }
    for words in (
        SAMPLE,
        base.hash,
        "embedded",
        "| objective | guidance |",
        "alpha = 8.0, guidance_scale = 2.5, rank = 4",
        f"tuned {rates['tuned']} %",
    ):
        assert words in card, words
    assert (
        f"| {results['time_ratio']:.2f} |" in card
        and "unguided 2, guided 4, tuned 2 (2 steps, DDIMScheduler" in card
    )
    assert (values["base_hash"], values["w_train"], values["objective"]) == (
        base.hash,
        W,
        "guidance",
    )
    assert values["compared"]["guidance_recovered"] == results["guidance_recovered"]
    assert values["compared"]["nfe"]["guided"] == 4 and values["train"]["alpha"] == ALPHA


def draw(pipe, **options) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator("cpu").manual_seed(4)
    return pipe(
        PROMPTS[0], num_inference_steps=2, generator=noise, output_type="np", **options
    ).images


def test_merged_export_is_not_guided_twice(exported, base):
    """At their default guidance scale, and in another of its family that is made of its parts."""
    pipe = StableDiffusionPipeline.from_pretrained(exported["merged"], safety_checker=None)
    once = draw(pipe, guidance_scale=1)
    assert pipe.unet.config.time_cond_proj_dim and not pipe.do_classifier_free_guidance
    np.testing.assert_array_equal(draw(pipe), once)
    assert not pipe.do_classifier_free_guidance
    other = StableDiffusionImg2ImgPipeline(**pipe.components)
    again = [
        draw(other, image=once[0], strength=0.9, **options)
        for options in ({}, {"guidance_scale": 1})
    ]
    np.testing.assert_array_equal(*again)
    plain = StableDiffusionPipeline(
        **pipe.components | {"unet": base.denoiser()}, requires_safety_checker=False
    )
    assert np.abs(draw(plain) - draw(plain, guidance_scale=1)).mean() > 0.01, (
        "a plain UNet is guided by default"
    )


def test_merged_export_can_be_compared(exported, run):
    """As another pipeline; nothing is learned from it, because it holds its guidance."""
    sampler = load_sampler(run)
    tuned, merged = (
        sampler.sample(sampler.resolver.resolve(name, STEPS), PROMPTS, SEEDS)
        for name in ("tuned", f"pipeline {exported['merged']}")
    )
    assert max_difference(tuned.images, merged.images) <= 1 and merged.nfe == STEPS
    check_unguided(base := find_base("embedded"))
    with pytest.raises(BaseError, match="holds its guidance already"):
        check_unguided(find_base(str(exported["merged"])))
    assert base.hash


def metadata_of(card: str) -> dict:
    """As the hub reads it."""
    return ModelCard(card, ignore_metadata_errors=False).data.to_dict()


@pytest.mark.parametrize("to", KINDS)
def test_card_begins_with_the_guidance_scale(exported, to):
    text = ModelCard((exported[to] / "README.md").read_text()).text.strip().splitlines()
    assert text[0] == f"# {NAME_OF_RUN}"
    assert text[2].startswith("**Sample with `guidance_scale=1`") and "guides twice" in text[2]


@pytest.mark.parametrize("to", KINDS)
def test_hub_reads_the_card_s_metadata(exported, base, run, to):
    values = metadata_of((exported[to] / "README.md").read_text())
    assert (values["library_name"], values["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert ("lora" in values["tags"]) == (to != "merged") and {"text-to-image", "guidance"} <= set(
        values["tags"]
    )
    assert "base_model" not in values, (
        "of the embedded base, the hub would link to another repository"
    )


@pytest.mark.parametrize(
    "origin, license, expected",
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
def test_card_links_only_to_bases_of_the_hub(base, trained, tmp_path, origin, license, expected):
    facts = adapter_facts(base) | {"base": origin, "base_origin": origin, "base_license": license}
    for relation in ("adapter", "finetune"):
        values = metadata_of(front_matter(facts, ["lora", "a: b"], relation) + "\n# A card\n")
        assert {name: values.get(name) for name in expected} == expected and values["tags"] == [
            "lora",
            "a: b",
        ]
        assert values.get("base_model_relation") == (relation if "base_model" in expected else None)
        assert ("base_model" in values) == ("base_model" in expected)


def test_card_names_the_export_for_each_program(exported):
    for to in KINDS:
        card = (exported[to] / "README.md").read_text()
        assert (
            "`kohya` for ComfyUI, A1111 and sd-scripts" in card and "`lora key not loaded`" in card
        )
        assert "does not load" not in card, "all programs load all layers of this adapter"


def test_export_names_layers_that_programs_miss(base, tmp_path):
    # other programs train such layers, and so did `all` once
    run = new_run(tmp_path / "old", base)
    other_adapter(run, base)
    out = export(run.folder, "kohya", tmp_path / "out")
    card, values = (out / "README.md").read_text(), json.loads((out / METADATA_FILE).read_text())
    assert values["layers_missed"] == {"sd-scripts": ["conv_out"]}
    assert (
        "sd-scripts does not load 1 of this adapter's layers (`conv_out`)" in card
        and "--to merged" in card
    )
    command = [sys.executable, "-m", "nbs_lib", "export", run.folder, "--to", "kohya", "--out", out]
    finished = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (
        finished.returncode == 0
        and "sd-scripts does not load 1 of" in finished.stderr
        and "**" not in finished.stderr
    )
    assert "does not load" not in (export(run.folder, "merged") / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_pictures_are_refused(trained, tmp_path):
    """The base's weights are finite, but their products are beyond fp32."""
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
    save_adapter(run.adapter, trained, adapter_facts(base))
    (run.cache / "cache.json").write_text(
        json.dumps({"base": base.name, "base_hash": base.hash, "resolution": 128})
    )
    for to in ("kohya", "merged"):
        with pytest.raises(ExportError, match="no numbers .NaN. on base"):
            export(run.folder, to)
    assert not (run.folder / "export").exists()


def test_export_holds_no_local_path(run, exported):
    for path in exported["merged"].rglob("*.json"):
        assert str(ROOT) not in path.read_text() and str(run.folder) not in path.read_text(), path


def test_numbers_of_an_earlier_adapter_are_left_out(base, trained, tmp_path):
    run = new_run(tmp_path / "again", base)
    save_adapter(run.adapter, trained, adapter_facts(base))
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


def test_a_card_says_how_near_the_pictures_are_to_guided(run, exported, tmp_path):
    results = json.loads((run.compare / "results.json").read_text())
    fidelity = results["contenders"]["tuned"]["fidelity"]
    card = (exported["diffusers"] / "README.md").read_text()
    ratio, nearer = fidelity["distance_ratio"], fidelity["nearer"]
    numbers = f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    assert f"| distance to guided, of unguided's | {numbers} |" in card
    assert f"| {100 * nearer['rate']:.0f} % of {nearer['count']}, of held-out captions |" in card
    other = Run(shutil.copytree(run.folder, tmp_path / "other", symlinks=True))
    older = results | {"to_guided": {}}
    del older["measured_on"]
    for row in older["contenders"].values():
        del row["fidelity"]
    (other.compare / "results.json").write_text(json.dumps(older))
    card = (export(other.folder, "diffusers") / "README.md").read_text()
    assert "distance to guided" not in card and "| time of tuned, of guided's |" in card
    older["contenders"]["tuned"]["fidelity"] = fidelity
    for objective, shown in (("guidance", True), ("finetune", False)):
        changed = older | {"objective": objective, "measured_on": "held-out captions"}
        (other.compare / "results.json").write_text(json.dumps(changed))
        compared = comparison_results(other)
        assert bool(compared["fidelity"]) == shown, "fine-tuning learns images, not guidance"


def test_numbers_of_a_replaced_adapter_are_left_out(run, tmp_path):
    other = Run(shutil.copytree(run.folder, tmp_path / "other", symlinks=True))
    for digest in (file_hash(other.adapter / LORA_FILE), "0" * 64):
        outputs = {f"adapter/{LORA_FILE}": digest}
        other.update_stage("train", status="done", outputs=outputs)
        other.update_stage("compare", status="done", inputs={"train": value_hash(outputs)})
        assert (comparison_results(other) is None) == (digest == "0" * 64)


def test_nan_weights_are_refused(run, tmp_path):
    other = Run(shutil.copytree(run.folder, tmp_path / "other", symlinks=True))
    file = bytearray((other.adapter / LORA_FILE).read_bytes())
    file[-4:] = b"\xff\xff\xff\xff"
    (other.adapter / LORA_FILE).write_bytes(file)
    with pytest.raises(ExportError, match="weights that are not numbers"):
        export(other.folder, "diffusers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("targets", ["(a+)+$", ".*to_q"])
def test_adapter_with_a_regular_expression_is_refused(base, trained, tmp_path, targets):
    run = new_run(tmp_path / "run", base)
    file = save_adapter(run.adapter, trained, adapter_facts(base))
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    settings = json.loads(metadata["lora_adapter_metadata"]) | {"unet.target_modules": targets}
    save_file(load_file(file), file, metadata | {"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(ExportError, match="target_modules are no list of plain layer names"):
        export(run.folder, "diffusers")
    assert not (run.folder / "export").exists()


def other_adapter(run: Run, base, **config) -> dict[str, torch.Tensor]:
    """Give the run an adapter with its scale in the header, as other programs save it.

    Returns the weights by their peft names.
    """
    unet = base.denoiser()
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
    weights = get_peft_model_state_dict(randomized(unet, 0.05), adapter_name=ADAPTER_NAME)
    facts = adapter_facts(base)
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


def test_kohya_with_different_ranks_alphas_and_convolutions(base, tmp_path):
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


def test_kohya_refuses_dora(base, tmp_path):
    run = new_run(tmp_path / "dora", base)
    other_adapter(run, base, use_dora=True)
    for to in ("diffusers", "merged"):
        export(run.folder, to, tmp_path / to)
    with pytest.raises(ExportError, match="DoRA.*export it to diffusers or merged"):
        export(run.folder, "kohya")
    assert not (run.folder / "export").exists()


def tamper(monkeypatch, to: str):
    """From now on, what is written is damaged before it is checked: one tensor is scaled."""
    write = exporter.WRITERS[to]

    def tampered(part, source):
        write(part, source)
        file = weights_of(part)
        weights = load_file(file)
        layer = LAYER.replace(".", "_")
        key = next(
            key for key in weights if layer in key.replace(".", "_") and key.endswith("weight")
        )
        save_file(weights | {key: weights[key] * 30}, file, {"format": "pt"})

    monkeypatch.setitem(exporter.WRITERS, to, tampered)


@pytest.mark.parametrize(
    ("objective", "sampling", "sentence"),
    [
        (
            "consistency",
            {"guidance_scale": 1.0, "scheduler": "LCMScheduler", "steps": 4},
            "LCMScheduler and guidance_scale=1",
        ),
        (
            "distribution",
            {
                "guidance_scale": 1.0,
                "scheduler": "DDIMScheduler",
                "timestep_spacing": "trailing",
                "steps": 2,
            },
            'in 2 steps with DDIMScheduler, timestep_spacing="trailing"',
        ),
        (
            "finetune",
            {"guidance_scale": 3.0, "scheduler": "DDIMScheduler", "steps": None},
            "like its base, with guidance",
        ),
    ],
)
def test_export_of_each_objective(base, trained, tmp_path, objective, sampling, sentence):
    run = new_run(tmp_path / objective, base)
    save_adapter(
        run.adapter, trained, adapter_facts(base) | {"objective": objective, "sampling": sampling}
    )
    for to in KINDS:
        card = (export(run.folder, to) / "README.md").read_text()
        assert sentence in card and objective in card
        assert to == "kohya" or (
            sampling["scheduler"] in card
            and f"guidance_scale={sampling['guidance_scale']:g}" in card
        )


def test_fully_trained_model_is_refused(base, tmp_path):
    run = new_run(tmp_path / "full", base)
    (run.model).mkdir()
    (run.model / METADATA_FILE).write_text("{}")
    with pytest.raises(ExportError, match="is a whole pipeline already"):
        export(run.folder, "merged")


@pytest.mark.parametrize("to", KINDS)
def test_export_with_other_pictures_leaves_nothing(base, trained, tmp_path, monkeypatch, to):
    run = new_run(tmp_path / "run", base)
    save_adapter(run.adapter, trained, adapter_facts(base))
    before = sorted(tmp_path.rglob("*"))
    tamper(monkeypatch, to)
    for out in (None, tmp_path / "deep" / "export"):
        with pytest.raises(ExportError, match=r"they differ by up to \d+ of 255, allowed is 1"):
            export(run.folder, to, out)
    assert sorted(tmp_path.rglob("*")) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_earlier_export_is_replaced_or_stays_whole(run, tmp_path, monkeypatch):
    folder = export(run.folder, "diffusers", tmp_path / "my ëxport")
    (folder / "README.md").write_text("old")
    export(run.folder, "diffusers", folder)
    assert SAMPLE in (folder / "README.md").read_text()
    before = contents(folder)
    tamper(monkeypatch, "diffusers")
    with pytest.raises(ExportError, match="they differ"):
        export(run.folder, "diffusers", folder)
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_find_run_by_name_or_folder(run, monkeypatch):
    monkeypatch.setattr(exporter, "ROOT", run.folder.parent.parent)
    assert (
        exporter.find_run(NAME_OF_RUN).folder == exporter.find_run(run.folder).folder == run.folder
    )
    with pytest.raises(ParameterError, match=f"outputs/ .there is {NAME_OF_RUN}. or its folder"):
        exporter.find_run("cache")


def test_export_refuses_a_folder_with_other_files(run, tmp_path):
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "mine.safetensors").write_text("mine")
    with pytest.raises(ExportError, match="holds 'mine.safetensors'"):
        export(run.folder, "kohya", tmp_path / "loras")
    with pytest.raises(ExportError, match="is a file"):
        export(run.folder, "kohya", tmp_path / "loras" / "mine.safetensors")
    with pytest.raises(ExportError, match="would replace"):
        export(run.folder, "kohya", run.folder)
    assert (tmp_path / "loras" / "mine.safetensors").read_text() == "mine" and run.adapter.is_dir()


def test_run_that_cannot_be_exported_is_refused(base, trained, tmp_path):
    with pytest.raises(ParameterError, match="given 'absent'; allowed is a run in outputs/"):
        export("absent", "kohya")
    run = new_run(tmp_path / "run", base)
    with pytest.raises(
        ParameterError, match="given 'ckpt'; allowed is one of diffusers, kohya, merged"
    ):
        export(run.folder, "ckpt")
    with pytest.raises(FileNotFoundError, match="2_train"):
        export(run.folder, "kohya")
    save_adapter(run.adapter, trained, adapter_facts(base) | {"base_hash": "0123456789abcdef" * 4})
    with pytest.raises(BaseError, match="was trained on .* with hash 0123456789abcdef"):
        export(run.folder, "kohya")
    (run.adapter / LORA_FILE).write_bytes(b"half")
    with pytest.raises(ExportError, match="cannot be exported"):
        export(run.folder, "kohya")
    assert not (run.folder / "export").exists()


def test_command_prints_only_the_export_s_folder(run, tmp_path):
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
    finished = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"export: {out}\n", "")
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


def test_refused_command_prints_one_sentence(base, tmp_path, python):
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
    finished = python(COMMANDS, json.dumps([arguments for arguments, _, _ in expected]))
    assert finished.stdout.split() == [code for _, code, _ in expected]
    for line, (_, _, header) in zip(finished.stderr.splitlines(), expected, strict=True):
        assert line.startswith("onepass: ") and header in line
