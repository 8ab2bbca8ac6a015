"""Which layers other programs load, held against their own maps of keys."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from re import split

import pytest
import torch
from diffusers import UNet2DConditionModel

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
