"""The base's quality: reconstruction, and how often CLIP ranks the right caption first."""

import json
import platform
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np
import torch
from transformers import CLIPModel

from ...files import write_atomic
from ...images.convert import unit_to_uint8
from ...models import StableDiffusion
from ...run.environment import hardware
from ..caption_ranking import caption_ranked_first
from ..captions import Caption, held_out_captions
from ..dataset import draw_book
from ..draw import draw_picture
from .vae import reconstruction_psnr

SCALES = (1.0, 2.0, 3.0, 4.0)
DDIM_STEPS = 25
CARD_HEAD = """# The embedded base

A tiny Stable Diffusion for 64 × 64 pictures, trained on the picture-book: \
`StableDiffusionPipeline.from_pretrained`
loads this folder, `CLIPModel.from_pretrained` its `clip/`. Made by `notebooks/picturebook.ipynb`;
averaged weights, fp16.

Measured on {captions} held-out captions, {steps} DDIM steps:

| | |
|---|---|
| VAE reconstruction | {psnr_db:.1f} dB PSNR |
| drawn pictures, right caption first of 16 | {drawn_rate:.1f} % |
"""


@torch.no_grad()
def sample(
    pipeline,
    prompts: list[str],
    guidance: float,
    seed: int = 0,
    steps: int = DDIM_STEPS,
    batch: int = 50,
) -> np.ndarray:
    """Return pictures uint8 [n, 64, 64, 3].

    Picture i starts from the noise of seed + i at every guidance scale.
    """
    pictures = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        seeds = range(seed + start, seed + start + len(part))
        output = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(number) for number in seeds],
            output_type="np",
        )
        pictures.append(unit_to_uint8(output.images))
    return np.concatenate(pictures)


def measure_base(
    folder: Path, captions: int = 500, spent: dict | None = None, scales: tuple[float, ...] = SCALES
) -> dict:
    """Measure a base on held-out captions and write `README.md` and `card.json` beside it.

    spent: the result of `make_base`, for the card
    """
    base = StableDiffusion("embedded", folder)
    tokenizer = base.tokenizer()
    pipeline = base.pipeline()
    clip_folder = folder / "clip"
    clip = CLIPModel.from_pretrained(clip_folder, use_safetensors=True, dtype=torch.float32).eval()
    examples = held_out_captions(captions)
    pictures = [
        np.asarray(draw_picture(caption.scene, Random(i))) for i, caption in enumerate(examples)
    ]
    book = draw_book(captions, seed=1, held_out=True)
    # of drawn pictures: the most that a sampled one can reach with this CLIP
    hits = caption_ranked_first(np.stack(pictures), examples, clip, tokenizer)
    results = {
        "captions": captions,
        "steps": DDIM_STEPS,
        "psnr_db": round(reconstruction_psnr(base.vae(), book), 2),
        "caption_first_drawn": float(hits.float().mean()),
        "caption_first_by_guidance": {},
        "by_kind": {},
    }
    for w in scales:
        images = sample(pipeline, [caption.text for caption in examples], w)
        hits = caption_ranked_first(images, examples, clip, tokenizer).tolist()
        rate = float(np.mean(hits))
        results["caption_first_by_guidance"][f"{w:g}"] = rate
        results["by_kind"][f"{w:g}"] = _rates_by_kind(hits, examples)
        # a line on the way, because all of it takes minutes
        print(f"w = {w:g}: right caption first {100 * rate:.1f} %", flush=True)
    results |= {
        "made": datetime.now(UTC).date().isoformat(),
        "machine": hardware(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "spent": spent,
    }
    # the numbers for programs, the page for readers
    write_atomic(folder / "card.json", json.dumps(results, indent=1) + "\n")
    write_atomic(folder / "README.md", base_card(results))
    return results


def _rates_by_kind(hits: list[bool], captions: list[Caption]) -> dict[str, float]:
    by_kind = defaultdict(list)
    for hit, caption in zip(hits, captions, strict=True):
        by_kind[caption.scene.kind].append(hit)
    return {kind: round(float(np.mean(by_kind[kind])), 3) for kind in sorted(by_kind)}


def base_card(results: dict) -> str:
    """Return the base's model card in Markdown."""
    drawn_rate = 100 * results["caption_first_drawn"]
    text = CARD_HEAD.format(**results, drawn_rate=drawn_rate)
    rates = results["caption_first_by_guidance"]
    best = max(rates, key=rates.get)
    for w, rate in rates.items():
        mark = " (best)" if w == best else ""
        text += f"| sampled at w = {w}{mark} | {100 * rate:.1f} % |\n"
    text += "\n"
    if results["spent"]:
        text += _cost_table(results["spent"])
    machine = results["machine"]
    return text + (
        f"Machine: {machine['cpu']}, {machine['cores']} cores; torch {results['torch']}; "
        f"{results['made']}.\n"
    )


def _cost_table(spent: dict) -> str:
    text = "| network | steps | samples | seconds | last loss |\n|---|---|---|---|---|\n"
    for name, cost in spent["networks"].items():
        figures = (cost["steps"], cost["samples"], cost["seconds"], cost["loss"])
        text += f"| {name} | " + " | ".join(map(str, figures)) + " |\n"
    parameters = json.dumps(spent["parameters"])
    return f"{text}\nDrawn scenes: {spent['book']}; parameters: `{parameters}`.\n"
