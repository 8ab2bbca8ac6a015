"""The trained networks as one folder for stock diffusers and transformers."""

import json
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from ...files import open_to_others
from ..canvas import SIZE
from .mmdit import FlowNetworks, flow_scheduler
from .unet import noise_schedule


def assemble(
    folder: Path,
    tokenizer: CLIPTokenizer,
    clip: CLIPModel,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
):
    """Write the base in fp16: a StableDiffusionPipeline, and both towers of CLIP in `clip/`."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=clip.half().text_model,
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    clip.save_pretrained(folder / "clip", safe_serialization=True)
    tokenizer.save_pretrained(folder / "clip")
    processor.save_pretrained(folder / "clip")
    for part in ("text_encoder", "clip"):
        _set_fp32(folder / part / "config.json")
    open_to_others(folder)


def assemble_flow(
    folder: Path,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModelWithProjection,
    networks: FlowNetworks,
):
    """Write the flow base in fp16: a StableDiffusion3Pipeline without T5."""
    # the stock pipeline adds it to latents, and here their mean is left as it is; a folder of this
    # machine has no place in the file
    vae.register_to_config(shift_factor=0.0, _name_or_path="")
    pipeline = StableDiffusion3Pipeline(
        transformer=networks.transformer.half(),
        scheduler=flow_scheduler(),
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        text_encoder_2=networks.text_encoder_2.half(),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    for part in ("text_encoder", "text_encoder_2"):
        _set_fp32(folder / part / "config.json")
    open_to_others(folder)


def _set_fp32(config: Path):
    # transformers loads a model in its config's precision, diffusers in fp32 by default: without
    # this, a stock pipeline would mix the two
    settings = json.loads(config.read_text()) | {"dtype": "float32"}
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
