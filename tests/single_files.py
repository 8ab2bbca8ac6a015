"""Bases in one file, written from folders in diffusers' layout by the names of the original code.

The names are those of CompVis' latent-diffusion, OpenCLIP and Stability's generative-models. They
are written down here apart from diffusers' conversion, which leads the other way.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_NAMES = {
    "down_blocks": "down",
    "up_blocks": "up",
    "resnets": "block",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "conv_shortcut": "nin_shortcut",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.block.0": "mid.block_1",
    "mid_block.block.1": "mid.block_2",
    "conv_norm_out": "norm_out",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "self_attn": "attn",
}

MMDIT = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
# Of a block: the layers of the picture's tokens, and of the text's.
MMDIT_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
}
QKV = {
    "attn.to_q": ("x_block.attn.qkv", "to_{}"),
    "attn.add_q_proj": ("context_block.attn.qkv", "add_{}_proj"),
    "attn2.to_q": ("x_block.attn2.qkv", "to_{}"),
}


def write_single_file(folder: Path, kind: str, path: Path, leave_out: str = "", **more) -> Path:
    """Write a folder in diffusers' layout as one file.

    kind: sd1, sd2, sdxl or one that begins with sd3
    leave_out: beginning of names that are not written
    more: further tensors
    """
    weights = single_file_weights(folder, kind)
    # every file of SD 1.x and 2.x has its schedule, in fp32
    weights["alphas_cumprod"] = torch.linspace(0.999, 0.005, 1000)
    kept = {
        name: weight.clone().contiguous()
        for name, weight in (weights | more).items()
        if not leave_out or not name.startswith(leave_out)
    }
    save_file(kept, path, {"format": "pt"})
    return path


def single_file_weights(folder: Path, kind: str) -> Weights:
    if kind.startswith("sd3"):
        return sd3_weights(folder)
    unet = json.loads((folder / "unet" / "config.json").read_text())
    weights = prefixed("model.diffusion_model.", unet_names(part_of(folder, "unet"), unet))
    weights |= prefixed("first_stage_model.", vae_names(part_of(folder, "vae")))
    text = part_of(folder, "text_encoder")
    if kind == "sd2":
        return weights | prefixed("cond_stage_model.model.", open_clip_names(text))
    plain = {f"text_model.{name.removeprefix('text_model.')}": text[name] for name in text}
    if kind == "sd1":
        plain["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        return weights | prefixed("cond_stage_model.transformer.", plain)
    second = open_clip_names(part_of(folder, "text_encoder_2"))
    weights |= prefixed("conditioner.embedders.0.transformer.", plain)
    return weights | prefixed("conditioner.embedders.1.model.", second)


def part_of(folder: Path, part: str) -> Weights:
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    return load_file(folder / part / f"{stem}.safetensors")


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: weight for name, weight in weights.items()}


def unet_names(weights: Weights, config: dict) -> Weights:
    """Return weights by the original names, which number the layers of all blocks together."""
    rows = config["layers_per_block"] + 1
    attends = {name.split(".attentions")[0] for name in weights if ".attentions" in name}

    def numbered(match: re.Match) -> str:
        side, block, layers, layer = match.groups()
        number = rows * int(block) + int(layer)
        if layers == "downsamplers":
            return f"input_blocks.{rows * (int(block) + 1)}.0.op"
        if layers == "upsamplers":
            place = 2 if f"up_blocks.{block}" in attends else 1
            return f"output_blocks.{rows * int(block) + rows - 1}.{place}.conv"
        place = 1 if layers == "attentions" else 0
        blocks = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
        return f"{blocks}.{place}"

    renamed = {}
    for name, weight in weights.items():
        new = replaced(name, UNET_ENDS)
        if "resnets" in name:
            new = replaced(new, RESNET)
        new = new.replace("samplers.0.conv", "samplers.0")
        renamed[re.sub(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)", numbered, new)] = weight
    return renamed


def vae_names(weights: Weights) -> Weights:
    last = max(int(name.split(".")[2]) for name in weights if name.startswith("decoder.up_blocks"))
    renamed = {}
    for name, weight in weights.items():
        new = replaced(name.replace("resnets", "block"), VAE_NAMES)
        if "attn_1" in new:
            new = replaced(new, VAE_ATTENTION)
            # the original layers are convolutions of one pixel
            weight = weight[..., None, None] if weight.ndim == 2 else weight
        # the original decoder counts its blocks from the finest
        new = re.sub(r"\bup\.(\d+)", lambda match: f"up.{last - int(match[1])}", new)
        renamed[new] = weight
    return renamed


def open_clip_names(weights: Weights) -> Weights:
    renamed = {}
    for name, weight in weights.items():
        plain = name.removeprefix("text_model.")
        if plain == "text_projection.weight":
            renamed["text_projection"] = weight.T
        elif not re.search(r"\.[qkv]_proj\.", plain):
            renamed[replaced(plain, OPEN_CLIP)] = weight
        elif ".q_proj." in plain:
            new = replaced(plain.replace(".q_proj.", ".in_proj_"), OPEN_CLIP)
            three = [weights[name.replace(".q_proj.", f".{one}_proj.")] for one in "qkv"]
            renamed[new] = torch.cat(three)
    return renamed


def sd3_weights(folder: Path) -> Weights:
    weights = prefixed("model.diffusion_model.", mmdit_names(part_of(folder, "transformer")))
    weights |= prefixed("first_stage_model.", vae_names(part_of(folder, "vae")))
    for part, name in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")):
        weights |= prefixed(f"text_encoders.{name}.transformer.", part_of(folder, part))
    return weights


def mmdit_names(weights: Weights) -> Weights:
    last = max(int(name.split(".")[1]) for name in weights if name.startswith("transformer_blocks"))
    renamed = {}
    for name, weight in weights.items():
        block = re.match(r"transformer_blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if not block:
            new = replaced(name, MMDIT)
            # the original stores the shift before the scale
            renamed[new] = halves_swapped(weight) if name.startswith("norm_out") else weight
            continue
        number, layer, end = block.groups()
        if layer in QKV:
            joined, one = QKV[layer]
            start = name.removesuffix(f"{layer}.{end}") + layer.split(".")[0]
            three = [weights[f"{start}.{one.format(letter)}.{end}"] for letter in "qkv"]
            renamed[f"joint_blocks.{number}.{joined}.{end}"] = torch.cat(three)
        elif layer in MMDIT_BLOCK:
            swapped = int(number) == last and layer == "norm1_context.linear"
            new = f"joint_blocks.{number}.{MMDIT_BLOCK[layer]}.{end}"
            renamed[new] = halves_swapped(weight) if swapped else weight
    return renamed


def halves_swapped(weight: torch.Tensor) -> torch.Tensor:
    return torch.cat(weight.chunk(2)[::-1])


def replaced(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        name = re.sub(rf"(?<![\w.]){re.escape(new)}\b|(?<=\.){re.escape(new)}\b", old, name)
    return name


def tiny_settings(source: Path, folder: Path, kinds: Iterable[str]) -> Path:
    """Write the shipped settings of these kinds, with small widths and few layers."""
    unet = {"block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 8}
    vae = {
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 4,
        "layers_per_block": 1,
    }
    for kind in kinds:
        for file in (source / kind).rglob("*.json"):
            settings = json.loads(file.read_text())
            part = file.parent.name
            if part == "unet":
                settings |= unet | tiny_unet(kind, settings)
            elif part == "vae":
                settings |= vae
            elif part.startswith("text_encoder"):
                width = 48 if settings["hidden_act"] == "gelu" else 32
                settings |= {"hidden_size": width, "intermediate_size": 2 * width}
                settings |= {"num_hidden_layers": 2, "num_attention_heads": 4}
                # SD 3 takes no projection of the first one
                same = kind.startswith("sd3") and width == 32
                settings |= {"projection_dim": width if same else 24}
            elif part == "transformer":
                settings |= tiny_transformer(settings)
            new = folder / file.relative_to(source)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(settings))
    return folder


def tiny_transformer(settings: dict) -> dict:
    changed = {
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": 80,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 32 + 24,
        "pos_embed_max_size": 16,
        "sample_size": 16,
    }
    if settings.get("dual_attention_layers"):
        changed["dual_attention_layers"] = [0, 1]
    return changed


def tiny_unet(kind: str, settings: dict) -> dict:
    attend, plain = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
    outer, inner = (plain, attend) if kind == "sdxl" else (attend, plain)
    changed = {
        "down_block_types": [outer[0], inner[0]],
        "up_block_types": [inner[1], outer[1]],
        "cross_attention_dim": {"sd1": 32, "sd2": 48, "sdxl": 80}[kind],
        "attention_head_dim": 4 if kind == "sd1" else [2, 4],
    }
    if kind == "sdxl":
        changed |= {
            "transformer_layers_per_block": [1, 2],
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24 + 6 * 8,
        }
    return changed
