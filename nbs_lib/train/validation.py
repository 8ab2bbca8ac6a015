"""Validation during a training: the loss of held-out examples, and pictures, from fixed noise.

In guidance that loss is the distance of the student's one pass to its guided teacher. The best
weights are chosen by it, see `checkpoint/best.py`.

validation/step-NNNNNNN.png   pictures of held-out captions or of the parameters' prompts
validation.png                all of them as one strip, see `monitor/progress_strip.py`
"""

import diffusers
import torch
from PIL import Image
from torch import Tensor

from ..config import Train
from ..diffusion import classifier_free_guidance
from ..images.convert import to_uint8
from ..models import TextEmbeddings
from ..models.sampling_recipe import spacing_options
from ..run.run import Run
from .checkpoint.best import BestWeights
from .checkpoint.checkpoint import all_gather
from .data.dataset import Examples
from .monitor.phases import mark_phase
from .monitor.progress_strip import (
    image_row,
    progress_strip,
    step_of,
    validation_images,
    write_png,
)
from .objectives import OBJECTIVES
from .setup import TrainingState
from .zero import partitioned

SAMPLING_STEPS = 25
CHUNK_SIZE = 4  # pictures that are sampled together


class Validation:
    """The validation of a training, called by all processes at the same steps."""

    def __init__(
        self,
        run: Run,
        config: Train,
        training: TrainingState,
        best: BestWeights,
        accelerator,
        first: int,
    ):
        """Remove the pictures of other trainings and draw the fixed noise.

        first: steps that are finished; pictures of later ones are not of this training.
        """
        self.run = run
        self.config = config
        self.training = training
        self.best = best
        self.examples = training.examples
        self.accelerator = accelerator
        self.folder = run.folder / "validation"
        self.n_images = image_count(config, training.examples)
        # of partitioned weights, no process can make a pass alone
        self.active = accelerator.is_main_process or partitioned(training.parameters)
        if self.n_images and self.active:
            self.noise, self.text = self._fixed_inputs()
        if accelerator.is_main_process:
            self._remove_pictures(first)

    def _remove_pictures(self, first: int):
        if not first:
            (self.run.folder / "validation.png").unlink(missing_ok=True)
        for path in validation_images(self.folder):
            if not first or step_of(path) > first:
                path.unlink()

    def due(self, step: int) -> bool:
        """Return True if there is something to validate at this step."""
        every = self.config.validation_steps
        if not every or not (self.n_images or len(self.examples.held_out)):
            return False
        return step % every == 0 or step == self.config.steps

    def missing(self, first: int) -> bool:
        """Return True if the step that a training starts from has not been validated."""
        last = self.best.last
        # or the training before had more steps to go, and this one ends here
        ends = first == self.config.steps and (last is None or last.step < first)
        return (not first or ends) and self.due(first)

    def validate(self, step: int, log):
        """Write the held-out loss into the log, and pictures into the folder."""
        mark_phase(self.run, "validate")
        losses = None
        latents = None
        if self.active:
            student = self.training.student.eval()
            # the dropout of the training continues as if nothing had been drawn in between
            random_state = torch.get_rng_state()
            # the weights that would be saved now
            with self.training.ema_weights():
                if len(self.examples.held_out):
                    losses = self.held_out_losses()
                if self.n_images:
                    latents = self.sample_all()
            torch.set_rng_state(random_state)
            student.train()
        main = self.accelerator.is_main_process
        if main and latents is not None:
            self.write_pictures(step, latents)
        # those of the main process, because all have to come to the same best weights
        losses = all_gather(losses)[0]
        if losses is None:
            return
        # step 0 is no result of a training
        if step:
            self.best.update(step, losses)
        if main:
            line = {"step": step, "held_out_loss": round(float(losses.mean()), 8)}
            log.write(line | ({"best_step": self.best.best.step} if self.best.best else {}))

    @torch.no_grad()
    def held_out_losses(self) -> Tensor:
        """Return the losses of the held-out examples, fp32 [n] on the CPU.

        The noise and the timesteps are always the same.
        """
        student = self.training.student
        loss_function = OBJECTIVES[self.config.objective].loss
        batches = self.examples.held_out_batches()
        on_device = (batch.to(self.accelerator.device) for batch in batches)
        losses = [loss_function(student, student, batch, self.config) for batch in on_device]
        return torch.cat(losses).cpu()

    def _fixed_inputs(self) -> tuple[Tensor, TextEmbeddings]:
        """Return noise [n, c, h, w] and texts of the pictures."""
        examples = self.examples
        base = self.training.base
        example = examples.held_out if len(examples.held_out) else examples.training
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.n_images, *examples.shape_of(example), generator=generator)
        if self.config.validation_prompts:
            repeats = range(self.config.num_validation_images)
            prompts = [prompt for prompt in self.config.validation_prompts for _ in repeats]
            return noise, base.encode_prompt(prompts, base.text_encoders())
        captioned = same_shape_held_out(examples)[: self.n_images]
        return noise, TextEmbeddings(*examples.texts(captioned))

    @torch.no_grad()
    def sample_all(self) -> Tensor:
        """Return scaled latents [n, c, h, w] of all pictures, sampled in chunks."""
        device = self.accelerator.device
        chunks = []
        for start in range(0, self.n_images, CHUNK_SIZE):
            rows = slice(start, start + CHUNK_SIZE)
            noise = self.noise[rows]
            text = TextEmbeddings(*(part if part is None else part[rows] for part in self.text))
            uncond = TextEmbeddings(*self.examples.unconditional(len(noise)))
            chunks.append(self.sample(noise.to(device), text.to(device), uncond.to(device)))
        return torch.cat(chunks)

    def sample(self, noise: Tensor, text: TextEmbeddings, uncond: TextEmbeddings) -> Tensor:
        """Return scaled latents [n, c, h, w], sampled as a model of this objective is to be.

        noise: standard normal [n, c, h, w].
        """
        objective = OBJECTIVES[self.config.objective]
        student = self.training.student
        steps = objective.sampling_steps(self.config) or SAMPLING_STEPS
        scheduler = self.training.base.scheduler(
            getattr(diffusers, objective.scheduler),
            **spacing_options(objective.timestep_spacing, steps),
        )
        scheduler.set_timesteps(steps, device=noise.device)
        # for a scheduler that adds noise in each step, as LCM's does
        generator = torch.Generator().manual_seed(0)
        x = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            times = t.expand(len(x))
            prediction = student(x, times, *text)
            if objective.guided:
                unguided = student(x, times, *uncond)
                w = self.config.guidance_scale
                prediction = classifier_free_guidance(unguided, prediction, w)
            x = scheduler.step(prediction, t, x, generator=generator).prev_sample
        return x

    @torch.no_grad()
    def write_pictures(self, step: int, latents: Tensor):
        """Write a row of pictures from scaled latents [n, c, h, w], and the strip of all rows."""
        base = self.training.base
        vae = base.vae().to(latents.device)
        pixels = torch.cat([base.decode(vae, chunk) for chunk in latents.split(CHUNK_SIZE)])
        images = [Image.fromarray(image) for image in to_uint8(pixels)]
        write_png(image_row(images), self.folder / f"step-{step:07d}.png")
        write_png(progress_strip(self.folder), self.run.folder / "validation.png")


def same_shape_held_out(examples: Examples) -> Tensor:
    """Return the held-out examples of the first one's shape; pictures of a row have one size."""
    held_out = examples.held_out
    if not len(held_out):
        return held_out
    shape = examples.shape[held_out]
    return held_out[shape == shape[0]]


def image_count(config: Train, examples: Examples) -> int:
    """Return the number of pictures at each validation."""
    if not config.validation_steps:
        return 0
    if config.validation_prompts:
        return len(config.validation_prompts) * config.num_validation_images
    return min(config.num_validation_images, len(same_shape_held_out(examples)))
