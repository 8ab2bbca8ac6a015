"""The predictions of teacher and student as pictures: a column for each example.

They are computed in a process beside the kernel, which ends before the training starts. So the
kernel can still fork, and what the pictures needed is free again.
"""

import json
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from ...config import Train
from ...images.convert import to_uint8
from ...images.grid import captioned_table
from ...images.html import data_url
from ...launch.side_process import call_in_process
from ...models import StableDiffusion
from ...run.run import Run
from ..resolve import resolve_choices
from .answers import Column, look_at_batch

PICTURES = (
    "Each column is one example at a noise level t, from 0, no noise, to 999, nothing else. Each "
    "row below the noise is the clean picture that a prediction points at. "
)
HELP = {
    "guidance": PICTURES + "The caption pulls the teacher's answer away from the one without it; "
    "guidance goes {w} times as far in the same direction. The student has one pass, with the "
    "caption, and has to arrive at the guided row.",
    "finetune": PICTURES + "The student learns from the examples: its row has to come nearer to "
    "the first one than the teacher's row with the caption does, which is the base as it was. "
    "Guidance comes later, when pictures are sampled.",
    "consistency": PICTURES + "At high t that is a blurred mean of all pictures that fit. The "
    "student learns to answer the same along the guided teacher's whole way to the picture, so "
    "that few steps are enough: its row has to become sharp at high t, too.",
    "distribution": "Each column is one step of the student's own sampling: what it starts from, "
    "the clean picture that its prediction points at, that picture noised again, and what the "
    "teacher takes the result for. Where the guided teacher would change the picture, the student "
    "is moved along, until both rows look alike.",
}
BEFORE = (
    "Nothing is learned yet: the student's row is the teacher's row with the caption.",
    "Nothing is learned yet: the student points at what the base points at, blurred at first.",
)
AFTER = (
    "The same examples, noise and levels as above. The teacher's rows are as they were, and its "
    "row with the caption is where the student began.",
    "The same prompts and noise as above; all rows follow from what the student does now.",
)


@dataclass(frozen=True)
class BatchSheet:
    """A page of pictures for a notebook, with words about them.

    png: b"" if there is none.
    words: what there is to see, or why there is no picture.
    losses: of the student for each example, as it began and now; [] if its target moves with it.
    """

    png: bytes
    words: list[str]
    losses: list[tuple[float, float]]

    def _repr_html_(self) -> str:
        words = "".join(f"<p>{escape(text)}</p>" for text in self.words)
        if not self.png:
            return words
        alt = "A column of decoded predictions for each example: teacher and student"
        return f'{words}<img src="{data_url(self.png)}" alt="{alt}">'

    def __repr__(self) -> str:
        return "\n".join(self.words)


def batch_sheet(config: Train, trained: bool = False) -> BatchSheet:
    """Return what teacher and student predict for a few examples.

    trained: True for the weights that the run has saved, False for the student before its first
        step.
    Errors: FileNotFoundError without a prepared cache, or without weights if `trained`.
    """
    # host 0 may still prepare
    if config.node_rank:
        return BatchSheet(b"", ["The notebook of host 0 shows a batch."], [])
    run = Run(config.run)
    run.require("train" if trained else "prepare")
    config = resolve_choices(config, run.cache)
    # as the training starts its own processes, so that it works in the same kernels
    start_method = "fork" if config.launcher == "notebook" else "spawn"
    try:
        content = call_in_process(_draw, config, run, trained, start_method=start_method)
    except RuntimeError as failure:
        # no reason not to train
        return BatchSheet(b"", [f"No batch can be shown: {failure}."], [])
    header, _, png = content.partition(b"\n")
    losses = json.loads(header)
    return BatchSheet(png, _words(config, trained, losses), losses)


def _words(config: Train, trained: bool, losses: list[tuple[float, float]]) -> list[str]:
    samples = config.objective == "distribution"
    words = [AFTER[samples]]
    if not trained:
        words = [HELP[config.objective].format(w=f"{config.guidance_scale:g}"), BEFORE[samples]]
    if losses:
        first, now = np.mean(losses, axis=0)
        after = f", and {now:.4g} after the training" if trained else ""
        words.append(f"The mean loss of these {len(losses)} is {first:.4g}{after}.")
    return words


def _draw(config: Train, run: Run, trained: bool) -> bytes:
    """Return the losses as a line of JSON, and the PNG."""
    base, columns = look_at_batch(config, run, trained)
    buffer = BytesIO()
    sheet_page(columns, decode_rows(base, columns)).save(buffer, "PNG")
    losses = [(column.first_loss, column.loss) for column in columns if column.loss is not None]
    return json.dumps(losses).encode() + b"\n" + buffer.getvalue()


@torch.no_grad()
def decode_rows(base: StableDiffusion, columns: list[Column]) -> np.ndarray:
    """Return the latents of columns decoded, uint8 [rows, columns, h, w, 3]."""
    vae = base.vae().to("cuda" if torch.cuda.is_available() else "cpu")

    def decode(latents: torch.Tensor) -> np.ndarray:
        return to_uint8(base.decode(vae, latents[None].to(vae.device)))[0]

    names = columns[0].latents
    # one by one: a batch of large pictures may not fit
    return np.stack([[decode(column.latents[name]) for column in columns] for name in names])


def sheet_page(columns: list[Column], pictures: np.ndarray) -> Image.Image:
    """Return the page of decoded latents, uint8 [rows, columns, h, w, 3]."""
    notes = []
    for column in columns:
        loss = "" if column.loss is None else f", loss {column.loss:.3g}"
        notes.append(f"t = {column.t}{loss}")
    captions = [column.caption for column in columns]
    return captioned_table(pictures, captions, list(columns[0].latents), notes=notes)
