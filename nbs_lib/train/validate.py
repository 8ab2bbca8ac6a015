"""Watching what is learned: the loss of held-out examples on fixed noise, and pictures of them from fixed noise.

validation/step-NNNNNNN.png   pictures of the first held-out captions, side by side, as the student draws them then
validation.png                all of them as one strip: a row for each look, the first one before training
"""

import io
import re
from pathlib import Path

import diffusers
import torch
from PIL import Image, ImageDraw

from ..config import Train
from ..diffusion import guided
from ..files import files_in, write_atomic
from ..models import Text
from ..run import Run
from .engine import partitioned
from .objectives import OBJECTIVES
from .parts import Parts
from .stages import mark

LOOK = re.compile(r"step-(\d{7,})\.png")
STEPS, SHOWN, ROWS = 25, 4, 8  # of sampling; pictures in a row, rows of the strip, at most
GAP, LEFT, SIDE = 6, 76, 128  # pixels between pictures, for the steps, of a small picture enlarged


class Validation:
    """Called by every process at the same steps; the main one looks, the others wait."""

    def __init__(self, run: Run, config: Train, parts: Parts, accelerator, first: int):
        """first: steps that are done already; pictures of another training than the one that goes on are removed."""
        self.run, self.config, self.parts, self.accelerator = run, config, parts, accelerator
        self.folder = run.folder / "validation"
        if accelerator.is_main_process:
            if not first:
                (run.folder / "validation.png").unlink(missing_ok=True)
            for path in looks(self.folder):
                if not first or step_of(path) > first:
                    path.unlink()

    def due(self, step: int) -> bool:
        every = self.config.validate_every
        return bool(every and len(self.parts.examples.held_out)) and (step % every == 0 or step == self.config.steps)

    def look(self, step: int, log):
        """Held-out loss into the log, pictures into the folder."""
        mark(self.run, "validate")
        main = self.accelerator.is_main_process
        if main or partitioned(self.parts.parameters):  # of weights in parts, no process can make a pass alone
            student, state = self.parts.student.eval(), torch.get_rng_state()
            with self.parts.averaged():  # what is looked at is what would be saved
                loss, latents = self.loss(), self.sampled()
            torch.set_rng_state(state)  # dropout's draws of the training go on as if nobody had looked
            student.train()
        if main:
            log.write({"step": step, "held_out_loss": round(loss, 8)})
            self.draw(step, latents)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def loss(self) -> float:
        """Mean loss of the held-out examples, each time on the same noise and timesteps."""
        student, losses = self.parts.student, []
        for batch in self.parts.examples.held_out_batches():
            batch = batch.to(self.accelerator.device)
            losses.append(OBJECTIVES[self.config.objective].loss(student, student, batch, self.config))
        return float(torch.cat(losses).mean())

    @torch.no_grad()
    def sampled(self) -> torch.Tensor:
        """Scaled latents of the first held-out captions, sampled as a model of this objective is to be sampled."""
        examples, device = self.parts.examples, self.accelerator.device
        first, shape = examples.held_out[0], examples.shape_of(examples.held_out)
        picked = examples.held_out[examples.shape[examples.held_out] == examples.shape[first]][:SHOWN]
        noise = torch.randn(len(picked), *shape, generator=torch.Generator().manual_seed(0)).to(device)
        texts = examples.texts(picked), examples.unconditional(len(picked))
        return self.sample(noise, *(Text(*text).to(device) for text in texts))

    @torch.no_grad()
    def draw(self, step: int, latents: torch.Tensor):
        """A row of pictures from scaled latents [n, c, h, w], and the strip of all rows so far."""
        pixels = (self.parts.base.decode(self.parts.base.vae().to(latents.device), latents) / 2 + 0.5).clamp(0, 1)
        bytes_ = (pixels * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        self.folder.mkdir(exist_ok=True)
        save(side_by_side([Image.fromarray(each) for each in bytes_]), self.folder / f"step-{step:07d}.png")
        save(strip(self.folder), self.run.folder / "validation.png")

    def sample(self, noise: torch.Tensor, text: Text, uncond: Text) -> torch.Tensor:
        """Scaled latents [n, c, h, w] from standard normal noise of that shape."""
        how, student = OBJECTIVES[self.config.objective], self.parts.student
        scheduler = self.parts.base.scheduler(getattr(diffusers, how.scheduler))
        scheduler.set_timesteps(how.steps or STEPS, device=noise.device)
        x, generator = noise * scheduler.init_noise_sigma, torch.Generator().manual_seed(0)
        for t in scheduler.timesteps:
            rows = t.expand(len(x))
            prediction = student(x, rows, *text)
            if how.guided:
                prediction = guided(student(x, rows, *uncond), prediction, self.config.guidance)
            x = scheduler.step(prediction, t, x, generator=generator).prev_sample
        return x


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a row; small ones are enlarged by a whole factor, with square pixels."""
    factor = max(1, SIDE // pictures[0].width)
    width, height = pictures[0].width * factor, pictures[0].height * factor
    row = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height), "white")
    for i, picture in enumerate(pictures):
        row.paste(picture.resize((width, height), Image.Resampling.NEAREST), (i * (width + GAP), 0))
    return row


def looks(folder: Path) -> list[Path]:
    """Return the pictures of a folder, in the order of their steps."""
    return [path for path in files_in(folder) if LOOK.fullmatch(path.name)]


def step_of(path: Path) -> int:
    return int(LOOK.fullmatch(path.name)[1])


def strip(folder: Path) -> Image.Image:
    """The rows of a folder below each other with their steps, at most eight of them, evenly chosen."""
    paths = looks(folder)
    last = min(ROWS, len(paths)) - 1
    chosen = [paths[round(i * (len(paths) - 1) / max(1, last))] for i in range(last + 1)]
    rows = [Image.open(path) for path in chosen]
    width, height = rows[0].size
    page = Image.new("RGB", (LEFT + width + GAP, len(rows) * (height + GAP) + GAP), "white")
    for i, (path, row) in enumerate(zip(chosen, rows, strict=True)):
        top = GAP + i * (height + GAP)
        page.paste(row, (LEFT, top))
        ImageDraw.Draw(page).text((GAP, top + height // 2), f"step {step_of(path)}", "black")
    return page


def save(image: Image.Image, path: Path):
    """A PNG that is there whole or not at all."""
    image.save(buffer := io.BytesIO(), "PNG")
    write_atomic(path, buffer.getvalue())
