"""What a base is worth: reconstruction, and how often the right caption comes first, drawn and sampled."""

import json
import platform
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
from ..captions import held_out_captions
from ..dataset import draw_book
from ..draw import draw
from .vae import reconstruction_psnr

SCALES = (1.0, 2.0, 3.0, 4.0)
STEPS = 25  # of DDIM


@torch.no_grad()
def sample(
    pipeline,
    prompts: list[str],
    guidance: float,
    seed: int = 0,
    steps: int = STEPS,
    batch: int = 50,
) -> np.ndarray:
    """Pictures uint8 [n, 64, 64, 3]; picture i starts from the noise of seed + i, whatever the guidance."""
    pictures = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        noise = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        out = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=noise,
            output_type="np",
        ).images
        pictures.append(unit_to_uint8(out))
    return np.concatenate(pictures)


def measure_base(
    folder: Path, captions: int = 500, spent: dict | None = None, scales: tuple[float, ...] = SCALES
) -> dict:
    """Measure a base on held-out captions and write its card, `README.md`, and the figures, `card.json`, beside it.

    spent: what `make_base` returned; recorded in the card.
    """
    clip = CLIPModel.from_pretrained(
        folder / "clip", use_safetensors=True, dtype=torch.float32
    ).eval()
    base = StableDiffusion("embedded", folder)
    tokenizer, pipeline = base.tokenizer(), base.pipeline()
    asked = held_out_captions(captions)
    drawn = np.stack(
        [np.asarray(draw(caption.scene, Random(i))) for i, caption in enumerate(asked)]
    )
    told = {
        "captions": captions,
        "steps": STEPS,
        "psnr_db": round(
            reconstruction_psnr(base.vae(), draw_book(captions, seed=1, held_out=True)), 2
        ),
        "caption_first_drawn": float(
            caption_ranked_first(drawn, asked, clip, tokenizer).float().mean()
        ),
        "caption_first_by_guidance": {},
    }
    for w in scales:
        first = caption_ranked_first(
            sample(pipeline, [c.text for c in asked], w), asked, clip, tokenizer
        ).tolist()
        told["caption_first_by_guidance"][f"{w:g}"] = float(np.mean(first))
        kinds = {c.scene.kind for c in asked}
        told.setdefault("by_kind", {})[f"{w:g}"] = {
            kind: round(
                float(
                    np.mean([f for f, c in zip(first, asked, strict=True) if c.scene.kind == kind])
                ),
                3,
            )
            for kind in sorted(kinds)
        }
        print(f"w = {w:g}: right caption first {100 * np.mean(first):.1f} %", flush=True)
    told["made"] = datetime.now(UTC).date().isoformat()
    told |= {
        "machine": hardware(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "spent": spent,
    }
    write_atomic(folder / "card.json", json.dumps(told, indent=1) + "\n")
    write_atomic(folder / "README.md", card(told))
    return told


def card(told: dict) -> str:
    """The model card in Markdown."""
    rows = told["caption_first_by_guidance"]
    best = max(rows, key=rows.get)
    lines = [
        "# The embedded base",
        "",
        "A tiny Stable Diffusion for 64 × 64 pictures, trained on the picture-book: `StableDiffusionPipeline.from_pretrained`",
        "loads this folder, `CLIPModel.from_pretrained` its `clip/`. Made by `notebooks/picturebook.ipynb`;",
        "averaged weights, fp16.",
        "",
        f"Measured on {told['captions']} held-out captions, {told['steps']} DDIM steps:",
        "",
        "| | |",
        "|---|---|",
        f"| VAE reconstruction | {told['psnr_db']:.1f} dB PSNR |",
        f"| drawn pictures, right caption first of 16 | {100 * told['caption_first_drawn']:.1f} % |",
        *(
            f"| sampled at w = {w}{' (best)' if w == best else ''} | {100 * rate:.1f} % |"
            for w, rate in rows.items()
        ),
        "",
    ]
    if told["spent"]:
        lines += ["| network | steps | samples | seconds | last loss |", "|---|---|---|---|---|"]
        for name, spent in told["spent"]["networks"].items():
            figures = (spent["steps"], spent["samples"], spent["seconds"], spent["loss"])
            lines.append(f"| {name} | " + " | ".join(map(str, figures)) + " |")
        lines += [
            "",
            f"Drawn scenes: {told['spent']['book']}; parameters: `{json.dumps(told['spent']['parameters'])}`.",
        ]
    cpu = told["machine"]
    lines.append(
        f"Machine: {cpu['cpu']}, {cpu['cores']} cores; torch {told['torch']}; {told['made']}."
    )
    return "\n".join(lines) + "\n"
