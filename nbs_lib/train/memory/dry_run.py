"""A dry run of a training step on tensors without numbers, which measures the memory of its parts.

It runs the training's own code on fake tensors, and counts every storage while it lives. That
happens in a forked process: autograd starts threads if there is a GPU, and a kernel with autograd's
threads cannot fork processes that train.
"""

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from diffusers import AutoencoderKL, ModelMixin
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter

from ...cache.format import N_TIMESTEPS
from ...config import Train
from ...launch.side_process import call_in_process
from ...models import NoiseSchedule, StableDiffusion, find_base
from ...models._imports import import_deepspeed
from ...models.components import WEIGHTS, weight_files
from ...models.lora.layers import lora_layers
from ...models.weights.fake_tensors import LiveMemoryTracker, fake_model, norms_in_fp32, to_fake
from ..data.batch import Batch
from ..data.dataset import Examples
from ..networks import DTYPES, Networks, build_networks, choose_attention
from ..objectives import OBJECTIVES
from ..setup import MIN_8BIT_SIZE
from ..student import Student
from ..validation import CHUNK_SIZE, image_count, same_shape_held_out


@dataclass(frozen=True)
class DryRunSizes:
    """The sizes of a training's parts, in bytes unless another unit is named.

    resident: of a process with the libraries in it.
    examples: of the cache, in memory.
    frozen: of the weights that do not learn.
    trained: number of weights that learn.
    learned: number of them that are saved.
    in_small_tensors: number of them in tensors that an optimizer in eight bits keeps in fp32.
    layers: number of layers with an adapter.
    denoiser: number of weights of one denoiser.
    activations: peak of a step, beside the weights and their gradients.
    decoding: of the VAE, with the peak while it decodes validation pictures.
    """

    resident: int
    examples: int
    frozen: int
    trained: int
    learned: int
    in_small_tensors: int
    layers: int
    denoiser: int
    activations: int
    decoding: int


def dry_run(config: Train, cache: Path, gpu: bool) -> DryRunSizes:
    """Run a step of a training on a prepared cache in a forked process; nothing here is touched.

    gpu: True to compute norms as a GPU does.
    Errors: RuntimeError with the reason, if the process failed.
    """
    return _dry_run(json.dumps(asdict(config)), cache.resolve(), gpu)


# the notebook shows the sizes before the training plans with them; a cache's path names its content
@lru_cache(maxsize=8)
def _dry_run(parameters: str, cache: Path, gpu: bool) -> DryRunSizes:
    try:
        content = call_in_process(_sizes, Train(**json.loads(parameters)), cache, gpu)
    except RuntimeError as failure:
        raise RuntimeError(f"the memory of the training could not be planned: {failure}") from None
    return DryRunSizes(**json.loads(content))


def _sizes(config: Train, cache: Path, gpu: bool) -> bytes:
    return json.dumps(asdict(_measure(config, cache, gpu))).encode()


def _measure(config: Train, cache: Path, gpu: bool) -> DryRunSizes:
    examples = Examples(cache, config)
    base = find_base(examples.meta["base"], examples.meta.get("revision", ""))
    return measure_step(config, base, examples, gpu)


def measure_step(
    config: Train, base: StableDiffusion, examples: Examples, gpu: bool
) -> DryRunSizes:
    """Return the sizes of a training, in this process.

    base: of which only settings are read.
    """
    if config.deepspeed:
        # here: a process that trains has it in memory too, and a kernel without DeepSpeed does not
        import_deepspeed()
    resident = psutil.Process().memory_info().rss
    mode = FakeTensorMode()
    networks = build_networks(SimpleNamespace(denoiser=partial(_denoiser, base)), config)
    trained = sum(parameter.nbytes for parameter in networks.parameters)
    small = [weight for weight in networks.parameters if weight.numel() < MIN_8BIT_SIZE]
    weights = _weights(networks)
    # as the training does, because attention decides on the activations
    choose_attention(networks.denoiser, DTYPES[config.mixed_precision], "cuda" if gpu else "cpu")
    return DryRunSizes(
        resident=resident,
        examples=examples.nbytes,
        frozen=sum(weight.nbytes for weight in weights) - trained,
        trained=sum(parameter.numel() for parameter in networks.parameters),
        learned=sum(parameter.numel() for parameter in networks.learned),
        in_small_tensors=sum(parameter.numel() for parameter in small),
        layers=len(lora_layers(networks.denoiser)),
        denoiser=sum(weight.numel() for weight in _denoiser(base).parameters()),
        activations=_activations(config, base, examples, networks, mode, gpu),
        decoding=_decoding(config, base, examples, mode),
    )


def _denoiser(base: StableDiffusion, dtype: torch.dtype = torch.float32) -> ModelMixin:
    """Return a denoiser of the base's shape, without numbers."""
    part = base.denoiser_part
    with torch.device("meta"):
        denoiser = base.classes[part].from_config(base._settings(f"{part}/config.json"))
    return denoiser.to(dtype).requires_grad_(False).eval()


def _weights(networks: Networks) -> list[Parameter]:
    weights = list(networks.denoiser.parameters())
    if networks.teacher_denoiser is not None:
        weights += networks.teacher_denoiser.parameters()
    return weights


def _activations(
    config: Train,
    base: StableDiffusion,
    examples: Examples,
    networks: Networks,
    mode: FakeTensorMode,
    gpu: bool,
) -> int:
    """Return the peak of one step of the objective, forward and backward, on the first batch."""
    denoiser = networks.denoiser
    for model in filter(None, (denoiser, networks.teacher_denoiser)):
        fake_model(model, mode)
    levels = to_fake(torch.empty(N_TIMESTEPS, device="meta"), mode)
    schedule = NoiseSchedule(levels, levels, base.prediction_type)
    dtype = DTYPES[config.mixed_precision]
    student = Student(denoiser, schedule, base.predict, dtype, networks.teacher_denoiser)
    # gradients are counted apart, because each is handed on when it is there
    for parameter in denoiser.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
    batch = _fake_batch(examples, mode)
    tracker = LiveMemoryTracker([*_weights(networks), levels])
    autocast = config.mixed_precision != "fp32" and not config.casts_lora_once
    norms = norms_in_fp32() if gpu and autocast else nullcontext()
    with mode, tracker, norms:
        losses = OBJECTIVES[config.objective].loss(student, student, batch, config)
        (losses * batch.weight).mean().backward()
    return tracker.peak


def _drop_gradient(parameter: torch.nn.Parameter):
    parameter.grad = None


def _fake_batch(examples: Examples, mode: FakeTensorMode) -> Batch:
    batch = examples.batch(0, 0, 1).to(torch.device("cpu"))
    return batch.map(lambda tensor: to_fake(tensor, mode))


def _decoding(
    config: Train, base: StableDiffusion, examples: Examples, mode: FakeTensorMode
) -> int:
    """Return the peak of validation pictures: of the VAE, or of the encoders of their prompts."""
    n_images = image_count(config, examples)
    if not n_images:
        return 0
    held_out = same_shape_held_out(examples)
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(base._settings("vae/config.json")).eval()
    shape = examples.shape_of(held_out if len(held_out) else examples.training)
    latents = torch.empty(min(n_images, CHUNK_SIZE), *shape, device="meta")
    fake_model(vae, mode)
    latents = to_fake(latents, mode)
    weights = list(vae.parameters())
    with mode, LiveMemoryTracker(weights) as tracker, torch.no_grad():
        vae.decode(latents)
    decoding = tracker.peak + sum(weight.nbytes for weight in weights)
    return max(decoding, _encoder_bytes(base)) if config.validation_prompts else decoding


def _encoder_bytes(base: StableDiffusion) -> int:
    """Return the bytes of the base's text encoders in fp32, by the sizes of their files."""
    total = 0
    for part in base.text_parts:
        if part in WEIGHTS:
            for path in weight_files(base.folder, part):
                total += path.stat().st_size * (2 if ".fp16" in path.name else 1)
    return total
