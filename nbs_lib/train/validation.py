"""Validation during a training: the loss of held-out examples, and pictures, from fixed noise.

In guidance that loss is the distance of the student's one pass to its guided teacher. The best
weights are chosen by it, see `checkpoint/best.py`.

validation/step-NNNNNNN.png   pictures of held-out captions or of the parameters' prompts
validation/target.png         what they are to become: the held-out pictures themselves in finetune,
                              else the guided teacher's from the same noise
validation.png                all of them as one strip, see `monitor/progress_strip.py`
"""

import diffusers
import torch
from PIL import Image
from torch import Tensor

from ..config import Train
from ..images.convert import to_uint8
from ..models import TextEmbeddings
from ..models.sampling_recipe import spacing_options
from ..run.run import Run
from .checkpoint.best import BestWeights
from .checkpoint.checkpoint import all_gather
from .data.dataset import Examples
from .monitor.phases import mark_phase
from .monitor.progress_strip import (
    TARGET,
    image_row,
    progress_strip,
    step_of,
    validation_images,
    write_png,
)
from .objectives import OBJECTIVES
from .sampling import Passes, sample
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
        self.captions: list[str] = []
        if self.n_images and self.active:
            self.noise, self.text = self._fixed_inputs()
        if accelerator.is_main_process:
            self._remove_pictures(first)

    def _remove_pictures(self, first: int):
        if not first:
            (self.run.folder / "validation.png").unlink(missing_ok=True)
            (self.folder / TARGET).unlink(missing_ok=True)
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
        targets = None
        if self.active:
            student = self.training.student.eval()
            # the dropout of the training continues as if nothing had been drawn in between
            random_state = torch.get_rng_state()
            # the weights that would be saved now
            with self.training.ema_weights():
                if len(self.examples.held_out):
                    losses = self.held_out_losses()
                if self.n_images:
                    latents = self.sample_all(self.student_passes())
                # a resumed training has them from its beginning
                if self.n_images and not step:
                    targets = self.target_latents()
            torch.set_rng_state(random_state)
            student.train()
        main = self.accelerator.is_main_process
        if main and targets is not None:
            write_png(self.decode_row(targets), self.folder / TARGET)
            log.trackers.log_picture("target", self.folder / TARGET, step)
        if main and latents is not None:
            path = self.folder / f"step-{step:07d}.png"
            write_png(self.decode_row(latents), path)
            log.trackers.log_picture("validation", path, step)
            strip = progress_strip(self.folder, self.captions)
            write_png(strip, self.run.folder / "validation.png")
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
            self.captions = prompts
            return noise, base.encode_prompt(prompts, base.text_encoders())
        captioned = same_shape_held_out(examples)[: self.n_images]
        self.captions = examples.captions(captioned)
        return noise, TextEmbeddings(*examples.texts(captioned))

    def student_passes(self) -> Passes:
        """Return how a model of this objective is to be sampled."""
        objective = OBJECTIVES[self.config.objective]
        steps = objective.sampling_steps(self.config) or SAMPLING_STEPS
        base = self.training.base
        name, spacing = base.sampler(objective.scheduler, objective.timestep_spacing)
        options = spacing_options(spacing, steps, name)
        scheduler = base.scheduler(getattr(diffusers, name), **options)
        return Passes(self.training.student, scheduler, steps, objective.guided, spacing)

    @torch.no_grad()
    def target_latents(self) -> Tensor | None:
        """Return scaled latents [n, c, h, w] of what the pictures are to become, None of nothing.

        In finetune these are the held-out examples, else the teacher's guided samples.
        """
        if self.config.objective != "finetune":
            scheduler = self.training.base.scheduler()
            predict = self.training.student.base_prediction
            return self.sample_all(Passes(predict, scheduler, SAMPLING_STEPS, guided=True))
        # a prompt of the parameters has no picture
        if self.config.validation_prompts:
            return None
        captioned = same_shape_held_out(self.examples)[: self.n_images]
        return self.examples.clean_latents(captioned).to(self.accelerator.device)

    @torch.no_grad()
    def sample_all(self, passes: Passes) -> Tensor:
        """Return scaled latents [n, c, h, w] of all pictures, sampled in chunks."""
        device = self.accelerator.device
        chunks = []
        for start in range(0, self.n_images, CHUNK_SIZE):
            rows = slice(start, start + CHUNK_SIZE)
            noise = self.noise[rows]
            text = TextEmbeddings(*(part if part is None else part[rows] for part in self.text))
            uncond = TextEmbeddings(*self.examples.unconditional(len(noise)))
            inputs = (noise.to(device), text.to(device), uncond.to(device))
            chunks.append(sample(passes, *inputs, self.config.guidance_scale))
        return torch.cat(chunks)

    @torch.no_grad()
    def decode_row(self, latents: Tensor) -> Image.Image:
        """Return the pictures of scaled latents [n, c, h, w] side by side."""
        base = self.training.base
        vae = base.vae().to(latents.device)
        pixels = torch.cat([base.decode(vae, chunk) for chunk in latents.split(CHUNK_SIZE)])
        return image_row([Image.fromarray(image) for image in to_uint8(pixels)])


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
