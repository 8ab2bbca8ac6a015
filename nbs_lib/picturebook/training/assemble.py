"""The trained networks as one folder that stock diffusers and transformers load."""

import json
from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from ...files import open_to_others
from .unet import noise_schedule


def assemble(
    folder: Path,
    tokenizer: CLIPTokenizer,
    clip: CLIPModel,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
):
    """Write the base to `folder` in fp16: a StableDiffusionPipeline, and in `clip/` the CLIP with both its towers."""
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
    pipeline.save_pretrained(folder, safe_serialization=True)
    clip.save_pretrained(folder / "clip", safe_serialization=True)
    tokenizer.save_pretrained(folder / "clip")
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=half,
        image_std=half,
    ).save_pretrained(folder / "clip")
    for part in ("text_encoder", "clip"):
        _load_in_fp32(folder / part / "config.json")
    open_to_others(folder)


def _load_in_fp32(config: Path):
    """transformers loads a model in the precision that its config names, diffusers in fp32 unless told otherwise: without
    this, a stock pipeline would mix the two."""
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
