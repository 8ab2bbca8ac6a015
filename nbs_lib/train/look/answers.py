"""The predictions of teacher and student for a few examples, as the clean latents they point at.

The examples are held out if there are any. Noise and timesteps are those of the validation, always
the same, so that the predictions before and after a training compare.
"""

from dataclasses import dataclass, replace

import pyarrow.parquet
import torch
from diffusers import ModelMixin
from torch import Tensor

from ...cache.format import CAPTIONS
from ...config import Train
from ...diffusion import add_noise, classifier_free_guidance
from ...models import StableDiffusion, find_base
from ...models.lora.layers import lora_layers
from ...models.lora.metadata import LORA_FILE
from ...run.run import Run
from ..data.batch import Batch
from ..data.dataset import Examples
from ..lora_cast import replace_lora_passes
from ..networks import DTYPES, choose_attention
from ..objectives import OBJECTIVES
from ..student import Student

COLUMNS = 4  # examples at most
# Names of rows.
EXAMPLE = "example"
NOISED = "noised"
NO_CAPTION = "teacher, no caption"
CAPTION = "teacher, caption"
GUIDED = "teacher, guided"
STUDENT = "student"


@dataclass(frozen=True)
class Column:
    """The predictions for one example.

    caption: of the example.
    t: its timestep, 0 to 999.
    latents: scaled latents fp32 [c, h, w] on the CPU, by the name of the row that shows them.
    loss: of the student, None if its target moves with the student.
    first_loss: of the teacher's prediction with the caption, where the student began, or None.
    """

    caption: str
    t: int
    latents: dict[str, Tensor]
    loss: float | None = None
    first_loss: float | None = None


def look_at_batch(config: Train, run: Run, trained: bool) -> tuple[StableDiffusion, list[Column]]:
    """Return the base, and the predictions for up to COLUMNS examples of one shape.

    config: with nothing left to choose.
    trained: True for the saved weights of the run, False for the student before its first step.

    The examples pass one by one and without gradients, which takes less memory than a step of the
    training, and less time than a step with a batch of 8.
    """
    # one example a batch, and no more of them than are shown
    few = min(config.validation_examples, COLUMNS)
    examples = Examples(run.cache, replace(config, batch_size=1, validation_examples=few))
    base = find_base(examples.meta["base"], examples.meta.get("revision", ""))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher, student = load_students(config, run, base, trained, device)
    columns = []
    for batch in few_batches(examples):
        caption = caption_of(run, examples, batch)
        columns.append(predictions(teacher, student, batch.to(device), config, caption))
    return base, columns


def few_batches(examples: Examples) -> list[Batch]:
    """Return batches of one example each, all of the first one's shape."""
    batches = list(examples.held_out_batches())
    if not batches:
        batches = [examples.batch(0, share, COLUMNS) for share in range(COLUMNS)]
    # pictures of a page have one size
    return [batch for batch in batches if batch.latents.shape == batches[0].latents.shape]


def caption_of(run: Run, examples: Examples, batch: Batch) -> str:
    """Return the caption of a batch of one example."""
    # this column alone, because a cache may have a million captions
    with pyarrow.parquet.ParquetFile(run.cache / CAPTIONS) as file:
        captions = file.read(["caption"])["caption"]
    return captions[int(examples.caption[batch.example[0]])].as_py()


def load_students(
    config: Train, run: Run, base: StableDiffusion, trained: bool, device: torch.device
) -> tuple[Student, Student]:
    """Return the teacher and the student: one denoiser, unless all of its weights are trained."""
    dtype = DTYPES[config.mixed_precision]
    denoiser = base.denoiser(dtype)
    if trained and config.method == "full":
        saved = replace(base, folder=run.model).denoiser(dtype)
        teacher = wrap_denoiser(denoiser, base, dtype, device)
        return teacher, wrap_denoiser(saved, base, dtype, device)
    # before its first step a student predicts what the base does: B of a LoRA is zero
    if trained:
        load_adapter(denoiser, base, run)
        if config.casts_lora_once:
            replace_lora_passes(lora_layers(denoiser))
    student = wrap_denoiser(denoiser, base, dtype, device)
    return student, student


def load_adapter(denoiser: ModelMixin, base: StableDiffusion, run: Run):
    """Load the adapter of a run, as a user's program does."""
    base.load_adapter(denoiser, run.adapter / LORA_FILE)


def wrap_denoiser(
    denoiser: ModelMixin, base: StableDiffusion, dtype: torch.dtype, device: torch.device
) -> Student:
    """Return a frozen denoiser on a device, as a student that only predicts."""
    denoiser.to(device).requires_grad_(False)
    choose_attention(denoiser, dtype, device.type)
    return Student(denoiser, base.noise_schedule().to(device), base.predict, dtype).eval()


@torch.no_grad()
def predictions(
    teacher: Student, student: Student, batch: Batch, config: Train, caption: str
) -> Column:
    """Return the predictions for a batch of one example, in the order in which they are shown."""
    if batch.rollout is not None:
        return _own_sampling(teacher, student, batch, caption)
    x_t = student.noisy_latents(batch)
    # a state of the teacher's own trajectory is on its way to another picture
    latents = {EXAMPLE: batch.latents} if batch.x_t is None else {}
    answers = teacher.teacher_pair(x_t, batch)
    latents |= {NOISED: x_t} | _teacher_rows(teacher, x_t, batch, answers)
    prediction = student(x_t, batch.t, batch.context, batch.pooled)
    latents[STUDENT] = student.x_0(prediction, x_t, batch.t)
    answered = replace(batch, answers=answers)
    losses = [_loss(side, student, answered, config) for side in (prediction, answers[1])]
    return Column(caption, int(batch.t[0]), _on_cpu(latents), *losses)


def _loss(prediction: Tensor, student: Student, batch: Batch, config: Train) -> float | None:
    """Return the loss of a prediction that is there already, None if its target moves."""
    objective = OBJECTIVES[config.objective]
    if not objective.fixed_target:
        return None
    return float(objective.loss(lambda *_: prediction, student, batch, config))


def _own_sampling(teacher: Student, student: Student, batch: Batch, caption: str) -> Column:
    """Return the column of an objective whose student is taught on its own sampling."""
    x_start, start = student.states(batch)
    prediction = student(x_start, start, batch.context, batch.pooled)
    x_0 = student.x_0(prediction, x_start, start)
    x_t = add_noise(x_0, batch.rollout.noise, *student.levels(batch.t))
    latents = {"its own sampling": x_start, STUDENT: x_0, "its answer, noised": x_t}
    latents |= _teacher_rows(teacher, x_t, batch, teacher.teacher_pair(x_t, batch))
    return Column(caption, int(start[0]), _on_cpu(latents))


def _teacher_rows(
    teacher: Student, x_t: Tensor, batch: Batch, answers: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    guided = classifier_free_guidance(*answers, batch.w.view(-1, 1, 1, 1))
    rows = zip((NO_CAPTION, CAPTION, GUIDED), (*answers, guided), strict=True)
    return {name: teacher.x_0(prediction, x_t, batch.t) for name, prediction in rows}


def _on_cpu(latents: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: row[0].cpu() for name, row in latents.items()}
