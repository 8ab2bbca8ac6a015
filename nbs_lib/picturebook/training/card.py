"""The bases' model cards."""

import json

CARD_HEAD = """# The embedded base

A tiny Stable Diffusion for 128 × 128 pictures, trained on the picture-book: \
`StableDiffusionPipeline.from_pretrained`
loads this folder, `CLIPModel.from_pretrained` its `clip/`. Made by `notebooks/picturebook.ipynb`;
averaged weights, fp16.

## What it can draw

- The ten kinds of scenes of the picture-book, with the colours, counts, sides and times of day that
  their captions name (`nbs_lib/picturebook/captions.py`), in the book's style.
- Nothing else: a word that no caption of the book had (`words.txt` lists those that had) does not
  give the thing that it means. Tokenizer, text tower and VAE know more than the UNet draws: they
  saw icons, so that the UNet can be fine-tuned on pictures of one's own
  (`docs/your-own-20-pictures.md`).
- Its VAE keeps drawings, icons and flat colours. Photos lose fine texture; `1_prepare` warns where
  much is lost.
"""
FLOW_HEAD = """# A flow base

A tiny Stable Diffusion 3 for 128 × 128 pictures, trained on the picture-book. Stock diffusers loads
this folder: `StableDiffusion3Pipeline.from_pretrained(FOLDER, text_encoder_3=None,
tokenizer_3=None)`. Made by `notebooks/picturebook.ipynb`, family flow; averaged weights, fp16.

- `transformer`: an MMDiT that predicts the velocity of the straight path from picture to noise.
- `text_encoder_2`: one layer, trained together with it. There is no T5.
- `vae` and `text_encoder`: those of the embedded base, its CLIP's text tower with the projection.
  The embedded base's card names what they were trained with.

It draws the ten kinds of scenes of the picture-book, in the book's style, and nothing else:
`words.txt` lists the words of its captions.
"""
MEASURED = """
## Measured

On {captions} held-out captions, {steps} {sampler} steps:

| | |
|---|---|
| VAE reconstruction, held-out scenes | {psnr_db:.1f} dB PSNR |
{icon_line}| drawn pictures, right caption first of 16 | {drawn_rate:.1f} % |
"""
ICON_LINE = """\
| VAE reconstruction, {icons} icons of a style that no training saw (OpenMoji) | \
{psnr_icons_db:.1f} dB PSNR |
"""


def base_card(results: dict) -> str:
    """Return the base's model card in Markdown."""
    drawn_rate = 100 * results["caption_first_drawn"]
    icon_line = ICON_LINE.format(**results) if results["icons"] else ""
    text, sampler = (FLOW_HEAD, "Euler") if results["is_flow"] else (CARD_HEAD, "DDIM")
    text += MEASURED.format(**results, drawn_rate=drawn_rate, icon_line=icon_line, sampler=sampler)
    rates = results["caption_first_by_guidance"]
    best = max(rates, key=rates.get)
    for w, rate in rates.items():
        mark = " (best)" if w == best else ""
        text += f"| sampled at w = {w}{mark} | {100 * rate:.1f} % |\n"
    text += "\n"
    if results["spent"]:
        text += _cost_table(results["spent"])
        # a flow takes what was trained with them
        if results["spent"]["licences"]:
            text += _licences(results["spent"]["licences"])
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
    return f"{text}\nDrawn scenes: {spent['book']}; parameters: `{parameters}`.\n\n"


def _licences(licences: dict[str, str]) -> str:
    text = "## Trained with\n\nThe weights hold no picture of these packages.\n\n"
    text += "| npm package | licence |\n|---|---|\n"
    for name, licence in licences.items():
        text += f"| {name} | {licence} |\n"
    return text + "\n"
