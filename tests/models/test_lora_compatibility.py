"""The layers that other programs load, held against their own maps of keys."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from re import split

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel

from nbs_lib.models.lora.checks import lora_targets_of
from nbs_lib.models.lora.compatibility import unsupported_layers
from nbs_lib.models.lora.layers import TARGETS, target_layers

MAPS = json.loads((Path(__file__).with_name("key_maps.json")).read_text())
SIZES = {
    "sd15": {"cross_attention_dim": 768},
    "sd21": {
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
"""The settings of the real UNets that differ from diffusers' defaults."""
COUNTS = {"sd15": 282, "sd21": 282, "sdxl": 794}


@pytest.fixture(scope="module", params=SIZES)
def real(request) -> tuple[str, UNet2DConditionModel]:
    """A UNet of a real base's layers, without weights."""
    with torch.device("meta"):
        return request.param, UNet2DConditionModel(**SIZES[request.param])


def expanded(pattern: str) -> Iterator[str]:
    """Yield the names that a pattern with braces stands for."""
    parts = split(r"{(.*?)}", pattern)
    return map(
        "".join, product(*(part.split(",") if i % 2 else [part] for i, part in enumerate(parts)))
    )


def loaded(program: str, kind: str) -> set[str]:
    names = set()
    for group in MAPS["programs"][program][kind]:
        for pattern in MAPS["layers"][group]:
            names |= set(expanded(pattern))
    return names


def test_unsupported_layers_are_those_that_a_program_s_map_lacks(real):
    kind, unet = real
    layers = set(lora_targets_of(unet))
    assert len(layers) == COUNTS[kind] and layers == loaded("ComfyUI", kind)
    missed = unsupported_layers(lora_targets_of(unet))
    assert {program: set(names) for program, names in missed.items()} == {
        program: layers - loaded(program, kind) for program in ("sd-scripts", "A1111")
    }


def test_every_program_loads_every_preset(real):
    kind, unet = real
    for targets in TARGETS:
        ends = tuple(f".{end}" for end in target_layers(unet, targets))
        targeted = {name for name in lora_targets_of(unet) if f".{name}".endswith(ends)}
        for program in MAPS["programs"]:
            assert targeted <= loaded(program, kind), program
        assert len(targeted) >= (COUNTS[kind] - 7 if targets == "all" else 100)


def comfyui_layers_of_sd_3(blocks: int) -> set[str]:
    """Return the layers of a transformer that ComfyUI finds for the keys of a file."""
    names = {name for pattern in MAPS["layers"]["sd3 basic"] for name in expanded(pattern)}
    for pattern in MAPS["layers"]["sd3 block"]:
        for name in expanded(pattern):
            names |= {f"transformer_blocks.{block}.{name}" for block in range(blocks)}
    return names


def test_comfyui_loads_every_layer_of_sd_3_s_transformer():
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(num_layers=4, dual_attention_layers=(0, 1))
    layers = set(lora_targets_of(transformer))
    assert len(layers) > 50 and not layers - comfyui_layers_of_sd_3(4)
    assert unsupported_layers(layers) == {}
    assert set(target_layers(transformer, "all")) == layers


def test_presets_of_sd_3_have_both_sides_of_joint_attention():
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(num_layers=2, dual_attention_layers=(0,))
    targeted = {}
    for preset in ("attention", "feedforward"):
        ends = tuple(f".{end}" for end in target_layers(transformer, preset))
        targeted[preset] = {
            name for name in lora_targets_of(transformer) if f".{name}".endswith(ends)
        }
    first = "transformer_blocks.0."
    for name in ("attn.to_q", "attn.add_k_proj", "attn.to_add_out", "attn2.to_out.0"):
        assert first + name in targeted["attention"], name
    for name in ("ff.net.0.proj", "ff_context.net.2"):
        assert first + name in targeted["feedforward"] - targeted["attention"], name
    # the last block gives no text, so nothing reads what it would add
    last = {name for name in targeted["feedforward"] if name.startswith("transformer_blocks.1.")}
    assert not any("to_add_out" in name or "ff_context" in name for name in last)
