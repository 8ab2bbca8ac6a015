"""The base's quality: reconstruction, and how often CLIP ranks the right caption first."""

import json
import platform
from collections import defaultdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from transformers import CLIPModel

from ...files import write_atomic
from ...images.convert import unit_to_uint8
from ...models import find_base
from ...run.environment import hardware
from ..caption_ranking import caption_ranked_first
from ..captions import Caption, held_out_captions
from ..dataset import draw_book
from ..draw import draw_picture
from .card import base_card
from .pictures.icons import UNSEEN_STYLE, IconPackages
from .pictures.mixture import on_white
from .vae import reconstruction_psnr

SCALES = (1.0, 2.0, 3.0, 4.0, 5.0)
STEPS = 25
UNSEEN_ICONS = 200


@torch.no_grad()
def sample(
    pipeline,
    prompts: list[str],
    guidance: float,
    seed: int = 0,
    steps: int = STEPS,
    batch: int = 50,
) -> np.ndarray:
    """Return pictures uint8 [n, 128, 128, 3].

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
    folder: Path,
    captions: int = 500,
    spent: dict | None = None,
    scales: tuple[float, ...] = SCALES,
    packages: IconPackages | None = None,
    clip_folder: Path | None = None,
) -> dict:
    """Measure a base on held-out captions and write `README.md` and `card.json` beside it.

    spent: the result of `make_base`, for the card
    packages: for the VAE's reconstruction of icons; without them it is not measured
    clip_folder: of both towers of CLIP; None if the base has them
    """
    base = find_base(str(folder))
    clip_folder = clip_folder or folder / "clip"
    clip = CLIPModel.from_pretrained(clip_folder, use_safetensors=True, dtype=torch.float32).eval()
    examples = held_out_captions(captions)
    ranked = partial(caption_ranked_first, clip=clip, tokenizer=base.tokenizer())
    results = {"captions": captions, "steps": STEPS, "is_flow": base.is_flow}
    results |= reconstruction(base.vae(), captions, packages)
    # of drawn pictures: the most that a sampled one can reach with this CLIP
    drawn = [np.asarray(draw_picture(one.scene, Random(i))) for i, one in enumerate(examples)]
    results["caption_first_drawn"] = float(ranked(np.stack(drawn), examples).float().mean())
    results |= {"caption_first_by_guidance": {}, "by_kind": {}}
    pipeline = base.pipeline()
    for w in scales:
        images = sample(pipeline, [caption.text for caption in examples], w)
        hits = ranked(images, examples).tolist()
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


def reconstruction(vae, scenes: int, packages: IconPackages | None) -> dict:
    """Return the VAE's mean PSNR on held-out scenes and on icons of the unseen style."""
    book = draw_book(scenes, seed=1, held_out=True)
    results = {"psnr_db": _mean_psnr(vae, book.images), "icons": 0, "psnr_icons_db": None}
    if packages is not None:
        pictures = unseen_icons(packages)
        results |= {"icons": len(pictures), "psnr_icons_db": _mean_psnr(vae, pictures)}
    return results


def unseen_icons(packages: IconPackages, count: int = UNSEEN_ICONS) -> np.ndarray:
    """Return icons of the style that no training saw, from all themes, uint8 [n, 128, 128, 3]."""
    every = max(1, len(packages.annotations()) // count)
    icons = packages.icons((UNSEEN_STYLE,), every)[:count]
    return np.stack([on_white(icon) for icon in icons])


def _mean_psnr(vae, images: np.ndarray) -> float:
    return round(float(reconstruction_psnr(vae, images).mean()), 2)


def _rates_by_kind(hits: list[bool], captions: list[Caption]) -> dict[str, float]:
    by_kind = defaultdict(list)
    for hit, caption in zip(hits, captions, strict=True):
        by_kind[caption.scene.kind].append(hit)
    return {kind: round(float(np.mean(by_kind[kind])), 3) for kind in sorted(by_kind)}
