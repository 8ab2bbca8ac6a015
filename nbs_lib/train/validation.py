"""Watching what is learned: the loss of held-out examples on fixed noise, and pictures of them from fixed noise.

validation/step-NNNNNNN.png   pictures of held-out captions, or of prompts that were given, as the student draws them then
validation.png                all of them as one strip: a row for each look, the first one before training
"""

import io
import re
from pathlib import Path

import diffusers
import torch
from PIL import Image, ImageDraw

from ..config import Train
from ..diffusion import classifier_free_guidance
from ..files import files_in, write_atomic
from ..images.convert import to_uint8
from ..models import TextEmbeddings
from ..run.run import Run
from .dataset import Examples
from .monitor.phases import mark_phase
from .objectives import OBJECTIVES
from .setup import TrainingState
from .zero import partitioned

LOOK = re.compile(r"step-(\d{7,})\.png")
STEPS, AT_ONCE, ROWS = (
    25,
    4,
    8,
)  # of sampling; pictures that are drawn together, rows of the strip, at most
GAP, LEFT, SIDE = 6, 76, 128  # pixels between pictures, for the steps, of a small picture enlarged


class Validation:
    """Called by every process at the same steps; the main one looks, the others wait."""

    def __init__(self, run: Run, config: Train, parts: TrainingState, accelerator, first: int):
        """first: steps that are done already; pictures of another training than the one that goes on are removed."""
        self.run, self.config, self.parts, self.accelerator = run, config, parts, accelerator
        self.folder = run.folder / "validation"
        self.pictures = pictures(config, parts.examples)
        # of weights in parts, no process can make a pass alone
        self.looks = accelerator.is_main_process or partitioned(parts.parameters)
        if self.pictures and self.looks:
            self.noise, self.text = self.drawn_from()
        if accelerator.is_main_process:
            if not first:
                (run.folder / "validation.png").unlink(missing_ok=True)
            for path in validation_images(self.folder):
                if not first or step_of(path) > first:
                    path.unlink()

    def due(self, step: int) -> bool:
        every = self.config.validation_steps
        wanted = every and (self.pictures or len(self.parts.examples.held_out))
        return bool(wanted) and (step % every == 0 or step == self.config.steps)

    def look(self, step: int, log):
        """Held-out loss into the log, pictures into the folder."""
        mark_phase(self.run, "validate")
        loss = latents = None
        if self.looks:
            student, state = self.parts.student.eval(), torch.get_rng_state()
            with self.parts.averaged():  # what is looked at is what would be saved
                loss = self.loss() if len(self.parts.examples.held_out) else None
                latents = self.sampled() if self.pictures else None
            torch.set_rng_state(
                state
            )  # dropout's draws of the training go on as if nobody had looked
            student.train()
        if self.accelerator.is_main_process:
            if loss is not None:
                log.write({"step": step, "held_out_loss": round(loss, 8)})
            if latents is not None:
                self.draw(step, latents)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def loss(self) -> float:
        """Mean loss of the held-out examples, each time on the same noise and timesteps."""
        student, losses = self.parts.student, []
        for batch in self.parts.examples.held_out_batches():
            batch = batch.to(self.accelerator.device)
            losses.append(
                OBJECTIVES[self.config.objective].loss(student, student, batch, self.config)
            )
        return float(torch.cat(losses).mean())

    def drawn_from(self) -> tuple[torch.Tensor, TextEmbeddings]:
        """Noise [n, c, h, w] and texts of the pictures, the same at each look."""
        examples, base, prompts = (
            self.parts.examples,
            self.parts.base,
            self.config.validation_prompts,
        )
        shape = examples.shape_of(examples.held_out if len(examples.held_out) else examples.own)
        if prompts:
            texts = [prompt for prompt in prompts for _ in range(self.config.num_validation_images)]
            text = base.encode_prompt(texts, base.text_encoders())
        else:
            text = TextEmbeddings(*examples.texts(of_first_shape(examples)[: self.pictures]))
        return torch.randn(self.pictures, *shape, generator=torch.Generator().manual_seed(0)), text

    @torch.no_grad()
    def sampled(self) -> torch.Tensor:
        """Scaled latents of the pictures, sampled as a model of this objective is to be sampled, some at a time."""
        device, parts = self.accelerator.device, []
        for start in range(0, self.pictures, AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            noise, text = (
                self.noise[rows],
                TextEmbeddings(*(part if part is None else part[rows] for part in self.text)),
            )
            uncond = TextEmbeddings(*self.parts.examples.unconditional(len(noise)))
            parts.append(self.sample(noise.to(device), text.to(device), uncond.to(device)))
        return torch.cat(parts)

    @torch.no_grad()
    def draw(self, step: int, latents: torch.Tensor):
        """A row of pictures from scaled latents [n, c, h, w], and the strip of all rows so far."""
        vae = self.parts.base.vae().to(latents.device)
        pixels = torch.cat([self.parts.base.decode(vae, part) for part in latents.split(AT_ONCE)])
        self.folder.mkdir(exist_ok=True)
        save(
            validation_page([Image.fromarray(each) for each in to_uint8(pixels)]),
            self.folder / f"step-{step:07d}.png",
        )
        save(progress_strip(self.folder), self.run.folder / "validation.png")

    def sample(
        self, noise: torch.Tensor, text: TextEmbeddings, uncond: TextEmbeddings
    ) -> torch.Tensor:
        """Scaled latents [n, c, h, w] from standard normal noise of that shape."""
        how, student = OBJECTIVES[self.config.objective], self.parts.student
        scheduler = self.parts.base.scheduler(getattr(diffusers, how.scheduler))
        scheduler.set_timesteps(how.steps or STEPS, device=noise.device)
        x, generator = noise * scheduler.init_noise_sigma, torch.Generator().manual_seed(0)
        for t in scheduler.timesteps:
            rows = t.expand(len(x))
            prediction = student(x, rows, *text)
            if how.guided:
                prediction = classifier_free_guidance(
                    student(x, rows, *uncond), prediction, self.config.guidance_scale
                )
            x = scheduler.step(prediction, t, x, generator=generator).prev_sample
        return x


def of_first_shape(examples: Examples) -> torch.Tensor:
    """The held-out examples that have the first one's shape, for pictures of one row are of one size."""
    held_out = examples.held_out
    return (
        held_out[examples.shape[held_out] == examples.shape[held_out[0]]]
        if len(held_out)
        else held_out
    )


def pictures(config: Train, examples: Examples) -> int:
    """How many pictures there are at each look."""
    if not config.validation_steps:
        return 0
    if config.validation_prompts:
        return len(config.validation_prompts) * config.num_validation_images
    return min(config.num_validation_images, len(of_first_shape(examples)))


def validation_page(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a row; small ones are enlarged by a whole factor, with square pixels."""
    factor = max(1, SIDE // pictures[0].width)
    width, height = pictures[0].width * factor, pictures[0].height * factor
    row = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height), "white")
    for i, picture in enumerate(pictures):
        row.paste(picture.resize((width, height), Image.Resampling.NEAREST), (i * (width + GAP), 0))
    return row


def validation_images(folder: Path) -> list[Path]:
    """Return the pictures of a folder, in the order of their steps."""
    return [path for path in files_in(folder) if LOOK.fullmatch(path.name)]


def step_of(path: Path) -> int:
    return int(LOOK.fullmatch(path.name)[1])


def progress_strip(folder: Path) -> Image.Image:
    """The rows of a folder below each other with their steps, at most eight of them, evenly chosen."""
    paths = validation_images(folder)
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
