import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from nbs_lib.config import Prepare
from nbs_lib.flow import shift_sigma
from nbs_lib.models import (
    EMBEDDED,
    MIRRORS,
    BaseError,
    StableDiffusion,
    StableDiffusion3,
    StableDiffusionXL,
    find_base,
)
from nbs_lib.models.checks.headers import FileError
from nbs_lib.models.components import CONFIGS, WEIGHTS
from nbs_lib.models.model_folder import load_model
from nbs_lib.models.origin import hub_id, license_of
from nbs_lib.prepare import prepare

FAMILIES = {
    "sd1": StableDiffusion,
    "sd2-v": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "sd3": StableDiffusion3,
    "sd3-t5": StableDiffusion3,
}
UNETS = ["sd1", "sd2-v", "sdxl"]
PREDICTIONS = {"sd2-v": "v_prediction", "sd3": "flow_prediction", "sd3-t5": "flow_prediction"}
# the second is longer than the text encoders read
TEXTS = ["A person holding a cat!", "a road " * 40]


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request, tiny_base, tmp_path_factory) -> tuple[str, Path]:
    """A tiny base of each family, for reading only."""
    return request.param, tiny_base(request.param, tmp_path_factory.mktemp("base") / request.param)


@pytest.fixture
def copied(tiny, tmp_path) -> tuple[str, Path]:
    """A tiny base of each family that may be changed."""
    return tiny[0], shutil.copytree(tiny[1], tmp_path / "copied")


def change(file: Path, **settings):
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_the_family_comes_from_the_index_or_the_components(copied):
    kind, folder = copied
    assert type(find_base(str(folder))) is FAMILIES[kind]
    (folder / "model_index.json").unlink()
    base = find_base(str(folder))
    assert type(base) is FAMILIES[kind]
    assert base.prediction_type == PREDICTIONS.get(kind, "epsilon")
    assert base.vae_scale_factor == 4


def denoiser_arguments(
    pipe: DiffusionPipeline, denoiser: torch.nn.Module, text: str, negative: str | None
) -> dict:
    """Return what a stock pipeline gives its denoiser by name, when guided."""
    calls = []
    handle = denoiser.register_forward_pre_hook(
        lambda denoiser, args, kwargs: calls.append(kwargs),
        with_kwargs=True,
        # before the denoiser's own, which leave out equal tokens
        prepend=True,
    )
    pipe.set_progress_bar_config(disable=True)
    options = {
        "height": 32,
        "width": 32,
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "output_type": "latent",
    }
    pipe(text, negative_prompt=negative, **options)
    handle.remove()
    return calls[0]


@pytest.mark.parametrize("negative_case", ["plain", "negative prompt", "empty prompt embedded"])
def test_text_embeddings_equal_the_stock_pipeline_s(copied, negative_case):
    kind, folder = copied
    negative = "blurry" if negative_case == "negative prompt" else ""
    if negative_case == "empty prompt embedded":
        change(folder / "model_index.json", force_zeros_for_empty_prompt=False)
    base = find_base(str(folder))
    encoders = base.text_encoders()
    for pipe in (
        DiffusionPipeline.from_pretrained(folder, **base.load_options),
        base.pipeline(),
    ):
        for text in TEXTS:
            uncond = base.encode_negative_prompt(encoders, negative)
            cond = base.encode_prompt([text], encoders)
            stock = denoiser_arguments(pipe, base.denoiser_of(pipe), text, negative or None)
            assert torch.equal(
                stock["encoder_hidden_states"], torch.cat([uncond.context, cond.context])
            )
            pooled = None if cond.pooled is None else torch.cat([uncond.pooled, cond.pooled])
            if base.is_flow:
                assert torch.equal(stock["pooled_projections"], pooled)
                continue
            side = 32 // base.vae_scale_factor
            added = base.added_cond_kwargs(pooled, torch.zeros(2, 4, side, side))
            if kind == "sdxl":
                assert set(added) == set(stock["added_cond_kwargs"])
                for name, value in stock["added_cond_kwargs"].items():
                    assert torch.equal(added[name], value), name
            else:
                assert added is None and stock["added_cond_kwargs"] is None


def test_random_text_has_the_shape_of_text_embeddings(tiny):
    base = find_base(str(tiny[1]))
    for noise, text in zip(
        base.random_text(2, base.text_tokens, torch.Generator()),
        base.encode_prompt(TEXTS, base.text_encoders()),
        strict=True,
    ):
        assert (noise is None and text is None) or noise.shape == text.shape


# of a VAE's latents; only SDXL's stock pipeline reads them
STATISTICS = {"latents_mean": [0.5, -1.0, 2.0, 0.1], "latents_std": [0.5, 2.0, 3.0, 1.5]}


def test_the_stock_pipeline_decodes_our_latents(copied, monkeypatch):
    """Our latents replace its last ones: the VAE must get what it had encoded."""
    kind, folder = copied
    for statistics in ({}, STATISTICS) if kind == "sdxl" else ({},):
        change(folder / "vae" / "config.json", **statistics)
        base = find_base(str(folder))
        decoded = []
        pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        pipe = base.pipeline()
        decode = pipe.vae.decode
        monkeypatch.setattr(
            pipe.vae,
            "decode",
            lambda z, decoded=decoded, decode=decode, **options: (
                decoded.append(z) or decode(z, **options)
            ),
        )
        ours = base.encode(pipe.vae, pixels)
        pipe(
            "a",
            height=32,
            width=32,
            num_inference_steps=1,
            callback_on_step_end=lambda *_, ours=ours: {"latents": ours},
        )
        torch.testing.assert_close(decoded[0], pipe.vae.encode(pixels).latent_dist.mode())
        torch.testing.assert_close(base.decode(pipe.vae, ours), decode(decoded[0]).sample)


def test_every_component_is_required_and_hashed(tiny, tmp_path):
    kind, folder = tiny
    parts = {path.name for path in folder.iterdir() if path.is_dir()}
    assert parts == set(find_base(str(folder)).components)
    complete = find_base(str(folder)).hash
    for part in parts:
        lacking = shutil.copytree(folder, tmp_path / f"lacks {part}")
        shutil.rmtree(lacking / part)
        with pytest.raises(BaseError, match=f"lacks {part}/"):
            find_base(str(lacking))
        other = shutil.copytree(folder, tmp_path / f"other {part}")
        if weights := next((other / part).glob("*.safetensors"), None):
            weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        else:
            (other / part / CONFIGS[part]).open("a").write(" ")
        assert find_base(str(other)).hash != complete, part


def test_sdxl_s_setting_of_the_empty_prompt_is_hashed(tiny_base, tmp_path):
    folder = tiny_base("sdxl", tmp_path / "base")
    zeros = find_base(str(folder)).hash
    change(folder / "model_index.json", force_zeros_for_empty_prompt=False)
    assert find_base(str(folder)).hash != zeros


@pytest.mark.parametrize(
    "index",
    ['{"_class_name": "FluxPipeline"}', '{"_class_name": ["mine", "Mine"]}', "{", "[]", "{}"],
)
def test_another_family_is_refused(tmp_path, index):
    folder = shutil.copytree(EMBEDDED, tmp_path / "base")
    (folder / "model_index.json").write_text(index)
    with pytest.raises(
        BaseError,
        match="StableDiffusionXLPipeline or StableDiffusion3Pipeline|model_index.json",
    ):
        find_base(str(folder))


def test_a_vocabulary_in_two_files_is_the_same_tokenizer(tmp_path):
    folder = shutil.copytree(EMBEDDED, tmp_path / "base")
    model = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(BaseError, match="tokenizer/tokenizer.json, or vocab.json and merges.txt"):
        find_base(str(folder))
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    base, embedded = find_base(str(folder)), find_base("embedded")
    for text in TEXTS:
        assert base.tokenizer()(text).input_ids == embedded.tokenizer()(text).input_ids


def test_a_scheduler_without_that_setting_clips_no_latents(tiny_base, tmp_path):
    folder = tiny_base("sdxl", tmp_path / "base")
    file = folder / "scheduler" / "scheduler_config.json"
    settings = json.loads(file.read_text())
    settings.pop("clip_sample")
    file.write_text(json.dumps(settings))
    assert find_base(str(folder)).scheduler().config.clip_sample is False


def test_the_embedded_base_loads_in_stock_pipelines_and_is_small():
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel

    StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True)
    CLIPModel.from_pretrained(EMBEDDED / "clip", local_files_only=True)
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*.safetensors")) < 25e6


def test_a_copied_base_has_the_same_hash(tmp_path):
    folder = tmp_path / "my bäse"
    shutil.copytree(EMBEDDED, folder)
    assert find_base(str(folder)).hash == find_base("embedded").hash
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert find_base(str(folder)).hash != find_base("embedded").hash


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component_is_named(tmp_path, part):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED, folder)
    shutil.rmtree(folder / part)
    with pytest.raises(BaseError, match=f"lacks {part}/"):
        find_base(str(folder))


def test_pickled_weights_are_refused(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(
        folder / "unet" / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(BaseError, match="unet/.*safetensors"):
        find_base(str(folder))


@pytest.mark.parametrize(
    "part, file", [("vae", "diffusion_pytorch_model.safetensors"), ("unet", "config.json")]
)
def test_a_damaged_component_is_named(tmp_path, part, file):
    folder = shutil.copytree(EMBEDDED, tmp_path / "base")
    (folder / part / file).write_bytes(b"{")
    with pytest.raises(BaseError, match=f"{part} .*damaged.*{part}/"):
        find_base(str(folder))


def with_weights(folder: Path, part: str, change: Callable[[dict], object], name: str = ""):
    """Write a part's weights again after a change."""
    file = folder / part / f"{WEIGHTS[part]}.safetensors"
    weights = load_file(file)
    change(weights)
    file.unlink()
    save_file(weights, folder / part / (name or file.name), {"format": "pt"})


BESIDE = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
UNFIT = {
    "no signal at the end": (
        "scheduler",
        {"prediction_type": "epsilon", **BESIDE},
        "zero terminal SNR.*v_prediction",
    ),
    "betas of its own": (
        "scheduler",
        {"prediction_type": "epsilon", "trained_betas": [0.01] * 999 + [1.0]},
        "zero terminal SNR",
    ),
    "a flow": (
        "scheduler",
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        "FlowMatchEulerDiscreteScheduler.*epsilon",
    ),
    "EDM": ("scheduler", {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler.*not supported"),
    "a flow by its sigmas": (
        "scheduler",
        {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
        "flows",
    ),
    "a flow that is predicted": (
        "scheduler",
        {"prediction_type": "flow_prediction"},
        "predicts a flow .*v_prediction",
    ),
    "inpainting": (
        "unet",
        {"in_channels": 9},
        "takes 9 channels, 4 of latents and 5 of a mask .*text alone",
    ),
}
"""Complete bases of unsupported kinds: the component, its settings, the facts in the error."""


@pytest.mark.parametrize("tiny", UNETS, indirect=True)
@pytest.mark.parametrize("kind", UNFIT)
def test_prepare_refuses_an_unsupported_base(copied, run_folder, kind):
    _, folder = copied
    part, settings, message = UNFIT[kind]
    change(folder / part / CONFIGS[part], **settings)
    if kind == "inpainting":
        with_weights(
            folder,
            "unet",
            lambda weights: weights.update({"conv_in.weight": torch.zeros(32, 9, 3, 3)}),
        )
    with pytest.raises(BaseError, match=message) as refused:
        prepare(Prepare(str(run_folder), base=str(folder), max_examples=8))
    assert str(folder) in str(refused.value)
    assert "fetch" not in str(refused.value), "another copy would not help"


UNFIT_FLOWS = {
    "levels by resolution": ({"use_dynamic_shifting": True}, "use_dynamic_shifting is true"),
    "a scheduler of diffusion": (
        {"_class_name": "DDIMScheduler"},
        "'DDIMScheduler', allowed is FlowMatchEulerDiscreteScheduler",
    ),
    "no shift": ({"shift": 0.0}, "shift holds 0.0"),
}


@pytest.mark.parametrize("kind", UNFIT_FLOWS)
def test_a_flow_with_other_levels_is_refused(tiny_base, tmp_path, kind):
    folder = tiny_base("sd3", tmp_path / "base")
    settings, message = UNFIT_FLOWS[kind]
    change(folder / "scheduler" / CONFIGS["scheduler"], **settings)
    with pytest.raises(BaseError, match=message):
        find_base(str(folder))


def test_a_flow_is_sampled_with_a_flow_s_schedulers(tiny_base, tmp_path):
    base = find_base(str(tiny_base("sd3", tmp_path / "base")))
    scheduler = base.scheduler(UniPCMultistepScheduler)
    scheduler.set_timesteps(4)
    # three times as far from the picture as without a shift
    expected = shift_sigma(torch.linspace(1, 0.001, 5)[1:-1], 3.0)
    torch.testing.assert_close(scheduler.sigmas[1:4], expected, atol=2e-3, rtol=0)
    with pytest.raises(BaseError, match="given 'EulerDiscreteScheduler'.*FlowMatchEuler"):
        base.scheduler(EulerDiscreteScheduler)
    with pytest.raises(BaseError, match="given 'FlowMatchEuler.*DDIMScheduler"):
        find_base("embedded").scheduler(FlowMatchEulerDiscreteScheduler)


@pytest.mark.parametrize("tiny", UNETS, indirect=True)
def test_zero_terminal_snr_fits_a_base_that_predicts_v(copied):
    kind, folder = copied
    change(folder / "scheduler" / CONFIGS["scheduler"], prediction_type="v_prediction", **BESIDE)
    assert find_base(str(folder)).scheduler().alphas_cumprod[-1] == 0


def test_prepare_refuses_a_guidance_distilled_base_that_sampling_allows(
    tiny_base, tmp_path, run_folder
):
    folder = tiny_base("sd1", tmp_path / "base")
    change(folder / "unet" / CONFIGS["unet"], time_cond_proj_dim=8)
    with_weights(
        folder,
        "unet",
        lambda weights: weights.update({"time_embedding.cond_proj.weight": torch.zeros(32, 8)}),
    )
    find_base(str(folder))
    with pytest.raises(BaseError, match="time_cond_proj_dim is 8"):
        prepare(Prepare(str(run_folder), base=str(folder), max_examples=8))


def test_a_snapshot_of_the_hub_has_its_repository_as_origin(tiny_base, tmp_path):
    revision = "0123456789abcdef" * 2 + "01234567"
    folder = tiny_base(
        "sd1", tmp_path / "hub" / "models--some-one--tiny-sd" / "snapshots" / revision
    )
    (tmp_path / "a link").symlink_to(folder)
    for path in (folder, tmp_path / "a link"):
        base = find_base(str(path))
        assert (base.title, base.origin) == ("some-one/tiny-sd", f"some-one/tiny-sd@{revision}")
    plain = find_base(str(folder.rename(tmp_path / "my base")))
    assert plain.title == "my base" and hub_id(plain.origin) == ""


@pytest.mark.parametrize(
    "card, license",
    [
        ("---\nlicense: openrail++\ntags: [a]\n---\n# A base", {"license": "openrail++"}),
        (
            "---\r\nlicense: other\r\nlicense_name: mine\r\nlicense_link: https://a.org/b\r\n---\r\n",
            {"license": "other", "license_name": "mine", "license_link": "https://a.org/b"},
        ),
        ("---\nlicense: [mit, other]\n---\n", {}),
        ("---\nlicense: !!python/object/apply:os.system ['true']\n---\n", {}),
        ("---\nlicense: {\n---\n", {}),
        ("---\ntags: [a]\n---\n", {}),
        ("# A base of license: mit", {}),
        (b"\xff\xfe---", {}),
        (None, {}),
    ],
)
def test_the_license_comes_from_the_card(tmp_path, card, license):
    if card is not None:
        (tmp_path / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert license_of(tmp_path) == license
    assert find_base("embedded").license == {"license": "mit"}


def test_weights_that_do_not_fit_the_settings_are_named(tiny, tmp_path):
    """The libraries draw a missing weight at random and skip an unexpected one."""
    kind, folder = tiny
    for part in [part for part in find_base(str(folder)).components if part in WEIGHTS]:
        name = sorted(load_file(folder / part / f"{WEIGHTS[part]}.safetensors"))[3]
        for word, change in {
            "1 missing": lambda weights, name=name: weights.pop(name),
            "1 unexpected": lambda weights, name=name: weights.update(
                {f"{name}.more": torch.zeros(2)}
            ),
            "1 misshapen": lambda weights, name=name: weights.update({name: torch.zeros(3, 1)}),
            "type I64": lambda weights, name=name: weights.update({name: weights[name].long()}),
        }.items():
            other = shutil.copytree(folder, tmp_path / f"{part} {word}", copy_function=os.link)
            ending = ".fp16" if word == "1 missing" else ""
            with_weights(other, part, change, f"{WEIGHTS[part]}{ending}.safetensors")
            with pytest.raises(BaseError) as refused:
                find_base(str(other))
            for fact in (part, word, name):
                assert fact in str(refused.value)


def in_shards(folder: Path, part: str) -> Path:
    """Split a component's weights into two files behind an index, and return the index."""
    single = folder / part / f"{WEIGHTS[part]}.safetensors"
    weights = load_file(single)
    weight_map = {}
    for number in (1, 2):
        name = f"{WEIGHTS[part]}-0000{number}-of-00002.safetensors"
        half = dict(sorted(weights.items())[number - 1 :: 2])
        save_file(half, folder / part / name, {"format": "pt"})
        weight_map |= dict.fromkeys(half, name)
    single.unlink()
    index = folder / part / f"{WEIGHTS[part]}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize(("part", "method"), [("unet", "denoiser"), ("text_encoder",) * 2])
def test_shards_load_and_must_match_their_index(tiny_base, tmp_path, part, method):
    folder = tiny_base("sd1", tmp_path / "base")
    expected = getattr(find_base(str(folder)), method)().state_dict()
    index = in_shards(folder, part)
    loaded = getattr(find_base(str(folder)), method)().state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in expected.items())
    text = index.read_text()
    name = next(iter(json.loads(text)["weight_map"]))
    for wrong in (
        text.replace("00001-of", "00003-of"),
        text.replace(name, "none"),
        text.replace(f"{WEIGHTS[part]}-", "../x-"),
    ):
        index.write_text(wrong)
        with pytest.raises(BaseError, match=f"its {part} cannot be used .*index.json"):
            find_base(str(folder))
    index.write_text(text)
    next(index.parent.glob("*-00002-of*")).unlink()
    with pytest.raises(BaseError, match="00002-of"):
        find_base(str(folder))


def test_names_of_older_libraries_are_loaded(tiny_base, tmp_path):
    """Files of SD 1.x have a prefix and a buffer in the text encoder, and old names in the VAE."""
    folder = tiny_base("sd1", tmp_path / "base")
    base = find_base(str(folder))
    expected = {part: getattr(base, part)().state_dict() for part in ("text_encoder", "vae")}

    def older_text(weights: dict):
        for name in list(weights):
            weights[f"text_model.{name.removeprefix('text_model.')}"] = weights.pop(name)
        weights["text_model.embeddings.position_ids"] = torch.arange(40)[None]

    def older_vae(weights: dict):
        for name in [name for name in weights if ".attentions." in name]:
            older = name
            for new, old in {
                "to_q": "query",
                "to_k": "key",
                "to_v": "value",
                "to_out.0": "proj_attn",
            }.items():
                older = older.replace(f".{new}.", f".{old}.")
            weights[older] = weights.pop(name)

    with_weights(folder, "text_encoder", older_text)
    with_weights(folder, "vae", older_vae)
    assert any(
        "proj_attn" in name
        for name in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    )
    base = find_base(str(folder))
    for part, weights in expected.items():
        loaded = getattr(base, part)().state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in weights.items()), part


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(tiny_base, tmp_path, value):
    folder = tiny_base("sd1", tmp_path / "base")
    with_weights(
        folder, "unet", lambda weights: weights["conv_in.weight"].view(-1)[:1].fill_(value)
    )
    with pytest.raises(BaseError, match="unet .*conv_in.weight"):
        find_base(str(folder)).denoiser()


def test_a_clip_that_lacks_a_weight_is_refused(tmp_path):
    folder = shutil.copytree(EMBEDDED / "clip", tmp_path / "clip")
    assert load_model(CLIPModel, folder).logit_scale.isfinite()
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FileError, match="visual_projection.weight"):
        load_model(CLIPModel, folder)


HOSTILE = [
    ("unet", "block_out_channels", [10**9, 10**9]),
    ("unet", "layers_per_block", 10**9),
    ("unet", "layers_per_block", "2"),
    ("unet", "transformer_layers_per_block", 10**6),
    ("unet", "down_block_types", ["EvilBlock2D", "DownBlock2D"]),
    ("unet", "act_fn", "exec"),
    ("unet", "norm_num_groups", 0),
    ("unet", "norm_num_groups", -8),
    ("unet", "norm_eps", "small"),
    ("unet", "downsample_padding", 10**6),
    ("unet", "cross_attention_dim", 64),
    ("unet", "quantization_config", {"quant_method": "bitsandbytes"}),
    ("vae", "scaling_factor", 0),
    ("vae", "sample_size", {}),
    ("text_encoder", "num_hidden_layers", 10**9),
    ("text_encoder", "vocab_size", 10**12),
    ("text_encoder", "hidden_act", 7),
    ("tokenizer", "model_max_length", 10**12),
    ("tokenizer", "model_max_length", None),
    ("scheduler", "num_train_timesteps", 10**12),
    ("scheduler", "num_train_timesteps", 2),
    # a training would never see the noisier half
    ("scheduler", "num_train_timesteps", 2000),
    ("scheduler", "trained_betas", [0.1, 0.2]),
    ("scheduler", "prediction_type", "noise"),
    ("scheduler", "beta_end", -1),
    ("scheduler", "beta_start", float("nan")),
]


@pytest.mark.parametrize("part, setting, value", HOSTILE)
def test_hostile_settings_are_refused(tiny_base, tmp_path_factory, part, setting, value):
    base = tmp_path_factory.getbasetemp() / "hostile sd1"
    if not base.is_dir():
        tiny_base("sd1", base)
    folder = shutil.copytree(base, tmp_path_factory.mktemp("hostile") / "base")
    change(folder / part / CONFIGS[part], **{setting: value})
    with pytest.raises(BaseError, match=f"its {part} cannot be used"):
        find_base(str(folder))


def test_settings_of_another_scheduler_are_refused_when_it_is_built(tiny_base, tmp_path):
    folder = tiny_base("sd1", tmp_path / "base")
    change(folder / "scheduler" / "scheduler_config.json", final_sigmas_type="none of them")
    base = find_base(str(folder))
    with pytest.raises(BaseError, match="its scheduler cannot be used .*final_sigmas_type"):
        base.scheduler(EulerDiscreteScheduler)


def test_settings_that_name_code_to_fetch_are_ignored(tiny_base, tmp_path):
    """transformers would look for such kernels on the hub, and run them."""
    folder = tiny_base("sd1", tmp_path / "base")
    original = find_base(str(folder)).text_encoder()
    settings = {
        "attn_implementation": "evil/kernels",
        "_attn_implementation_internal": "evil/kernels",
        "auto_map": {"AutoModel": "x.Y"},
    }
    change(folder / "text_encoder" / "config.json", **settings)
    encoder = find_base(str(folder)).text_encoder()
    assert encoder.config._attn_implementation == original.config._attn_implementation


@pytest.mark.parametrize("part", ["unet", "tokenizer"])
def test_a_pipe_instead_of_settings_is_refused(tiny_base, tmp_path, part):
    folder = tiny_base("sd1", tmp_path / "base")
    (folder / part / CONFIGS[part]).unlink()
    os.mkfifo(folder / part / CONFIGS[part])
    with pytest.raises(BaseError, match=f"lacks {part}/"):
        find_base(str(folder))


def test_prepare_checks_the_unet_before_it_encodes(tiny_base, run_folder, tmp_path):
    """Only training loads the UNet."""
    folder = tiny_base("sd1", tmp_path / "base")
    with_weights(folder, "unet", lambda weights: weights.pop("conv_out.bias"))
    with pytest.raises(BaseError, match="unet .*1 missing .conv_out.bias"):
        prepare(Prepare(str(run_folder), base=str(folder), max_examples=4, resolution=32))
    assert not list(run_folder.parent.glob("cache/*"))


def test_fp16_weights_are_loaded_if_there_are_no_others(tiny, copied):
    kind, folder = copied
    with_files = [part for part in find_base(str(folder)).components if part in WEIGHTS]
    for part in with_files:
        (folder / part / f"{WEIGHTS[part]}.safetensors").rename(
            folder / part / f"{WEIGHTS[part]}.fp16.safetensors"
        )
    base = find_base(str(folder))
    fp32_base = find_base(str(tiny[1]))
    for part in with_files:
        expected = fp32_base._load(part, torch.float32).state_dict()
        for name, value in base._load(part, torch.float32).state_dict().items():
            assert value.dtype == torch.float32, name
            assert torch.equal(value, expected[name]), name


def test_files_that_are_not_loaded_are_not_hashed(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(EMBEDDED, folder)
    for name in (
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.fp16.safetensors",
        "notes.md",
    ):
        (folder / "unet" / name).write_bytes(b"beside")
    assert find_base(str(folder)).hash == find_base("embedded").hash


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(BaseError, match="no such folder"):
        find_base(str(tmp_path / "absent"))


REVISIONS = """
from nbs_lib.models import BaseError, find_base
for revision in ("", "v1", "v2"):
    try:
        base = find_base("someone/a-base", revision)
        print(base.origin, base.hash)
    except BaseError as failure:
        print(failure)
"""


def test_the_revision_on_the_hub_is_loaded(python, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    commits = {"main": "a" * 40, "v1": "b" * 40}
    hashes = []
    for ref, commit in commits.items():  # an earlier download, in the hub's layout
        folder = shutil.copytree(
            EMBEDDED, tmp_path / "models--someone--a-base" / "snapshots" / commit
        )
        change(folder / "scheduler" / "scheduler_config.json", of_revision=ref)
        hashes.append(find_base(str(folder)).hash)
        refs = tmp_path / "models--someone--a-base" / "refs"
        refs.mkdir(exist_ok=True)
        (refs / ref).write_text(commit)
    newest, tagged, absent = python(REVISIONS).stdout.splitlines()
    assert newest == f"someone/a-base@{commits['main']} {hashes[0]}"
    assert tagged == f"someone/a-base@{commits['v1']} {hashes[1]}"
    assert "at revision 'v2'" in absent and "Check the id, the revision" in absent


@pytest.mark.parametrize("name", ["embedded", str(EMBEDDED)])
def test_a_revision_of_a_local_base_is_refused(name):
    with pytest.raises(BaseError, match="revision: given 'v1' with base"):
        find_base(name, "v1")


EACH_BASE = """
import sys
from nbs_lib.models import BaseError, find_base
for name in sys.argv[1:]:
    try:
        find_base(name)
    except BaseError as failure:
        print(repr(str(failure)))
"""


def test_an_unreachable_hub_is_reported_with_all_mirrors(python, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # this machine's own cache may hold a base
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    names = [*MIRRORS, "models/sd 15"]
    errors = python(EACH_BASE, *names).stdout.splitlines()
    for name, error in zip(names, errors, strict=True):
        for fact in (name, *MIRRORS.get(name, ()), "local folder"):
            assert fact in error
