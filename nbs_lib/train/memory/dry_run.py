"""A training step rehearsed on tensors without content: how much memory its parts would take.

The step runs through the training's own code, on fake tensors that have shapes and no numbers, and every storage that it
makes is counted while it lives. It does so in a process aside: autograd starts threads where there is a GPU, and a kernel
with threads of autograd's can fork no process that trains.
"""

import gc
import json
import logging
import multiprocessing
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ...config import Train
from .fake_tensors import LiveMemoryTracker, fake, norms_in_fp32, to_fake


@dataclass(frozen=True)
class DryRunSizes:
    """What a training is made of. Bytes, except for `trained`, the weights that learn, and `whole`, all of a UNet's.

    resident: a process with the libraries in it; examples: of the cache, in memory; frozen: weights that do not learn;
    activations: at most at once in a step, beside the weights and their gradients; decoding: the VAE, and at most at once
    while it draws validation's pictures.
    """

    resident: int
    examples: int
    frozen: int
    trained: int
    whole: int
    activations: int
    decoding: int


def dry_run(config: Train, cache: Path, gpu: bool) -> DryRunSizes:
    """Rehearse a step of a training on a prepared cache, in a process aside; nothing here is touched.

    Errors: RuntimeError with what the process said, where it failed.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(theirs, config, cache, gpu), daemon=True)
    process.start()
    theirs.close()
    try:
        told = json.loads(ours.recv_bytes())
    except EOFError:
        told = {"failed": "it was ended"}
    process.join()
    if "failed" in told:
        raise RuntimeError(f"the memory of the training could not be planned: {told['failed']}")
    return DryRunSizes(**told)


def _tell(pipe: Any, config: Train, cache: Path, gpu: bool):
    gc.freeze()  # see `launch.in_process`
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (libraries remark on what is no training)
    logging.disable()
    try:
        told = {field: int(value) for field, value in vars(_rehearsed(config, cache, gpu)).items()}
    except Exception as failure:
        told = {"failed": f"{type(failure).__name__}: {failure}"}
    pipe.send_bytes(json.dumps(told).encode())


def _rehearsed(config: Train, cache: Path, gpu: bool) -> DryRunSizes:
    import deepspeed  # noqa: F401  (a process that trains has it in memory, too)
    import psutil
    from torch._subclasses.fake_tensor import FakeTensorMode

    from ...models import find_base
    from ..dataset import Examples
    from ..setup import DTYPES, choose_attention, trainable

    resident = psutil.Process().memory_info().rss
    examples = Examples(cache, config)
    base, mode = (
        find_base(examples.meta["base"], examples.meta.get("revision", "")),
        FakeTensorMode(),
    )
    unet, teacher, parameters = trainable(SimpleNamespace(unet=partial(_unet, base)), config)
    weights = [*unet.parameters(), *(teacher.parameters() if teacher else [])]
    size, trained = sum(_bytes(each) for each in weights), sum(each.numel() for each in parameters)
    choose_attention(unet, DTYPES[config.mixed_precision], "cuda" if gpu else "cpu")
    activations = _step(config, base, examples, unet, teacher, mode, gpu)
    decoding = _decoding(config, base, examples, mode)
    return DryRunSizes(
        resident=resident,
        examples=sum(_bytes(each) for each in _tensors(examples)),
        frozen=size - sum(_bytes(each) for each in parameters),
        trained=trained,
        whole=sum(each.numel() for each in _unet(base, torch.float32).parameters()),
        activations=activations,
        decoding=decoding,
    )


def _unet(base: Any, dtype: torch.dtype = torch.float32):
    """A UNet of the base's shape, without content."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(base._settings("unet/config.json"))
    return unet.to(dtype).requires_grad_(False).eval()


def _step(
    config: Train, base: Any, examples: Any, unet: Any, teacher: Any, mode: Any, gpu: bool
) -> int:
    """Bytes of activations at most: one step of the objective, forward and backward, on the first batch."""
    from ..objectives import OBJECTIVES
    from ..setup import DTYPES
    from ..student import Student

    dtype = DTYPES[config.mixed_precision]
    for model in filter(None, (unet, teacher)):
        fake(model, mode)
    schedule = to_fake(torch.empty(1000, device="meta"), mode)
    student = Student(unet, schedule, base.prediction_type, dtype, teacher, base.added_cond_kwargs)
    for parameter in unet.parameters():
        if (
            parameter.requires_grad
        ):  # gradients are counted apart, for they are handed on one by one
            parameter.register_post_accumulate_grad_hook(
                lambda parameter: setattr(parameter, "grad", None)
            )
    batch = _faked_batch(examples, mode)
    known = [*unet.parameters(), *(teacher.parameters() if teacher else []), schedule]
    norms = norms_in_fp32() if gpu and config.mixed_precision != "fp32" else nullcontext()
    with mode, LiveMemoryTracker(known) as counted, norms:
        losses = OBJECTIVES[config.objective].loss(student, student, batch, config)
        (losses * batch.weight).mean().backward()
    return counted.peak


def _decoding(config: Train, base: Any, examples: Any, mode: Any) -> int:
    """Bytes that pictures on the way take, at most: of the VAE and of its decoding, or of the encoders of their prompts."""
    from diffusers import AutoencoderKL

    from ..validation import AT_ONCE, of_first_shape, pictures

    if not (count := pictures(config, examples)):
        return 0
    held_out = of_first_shape(examples)
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(base._settings("vae/config.json")).eval()
    shape = examples.shape_of(held_out if len(held_out) else examples.own)
    latents = torch.empty(min(count, AT_ONCE), *shape, device="meta")
    fake(vae, mode)
    latents = to_fake(latents, mode)
    with mode, LiveMemoryTracker(list(vae.parameters())) as counted, torch.no_grad():
        vae.decode(latents)
    decoding = counted.peak + sum(_bytes(each) for each in vae.parameters())
    return max(decoding, _encoders(base)) if config.validation_prompts else decoding


def _encoders(base: Any) -> int:
    """Bytes of the base's text encoders in fp32, by the sizes of their files."""
    from ...models.components import WEIGHTS, weight_files

    files = [
        path
        for part in base.text_parts
        if part in WEIGHTS
        for path in weight_files(base.folder, part)
    ]
    return sum(path.stat().st_size * (2 if ".fp16" in path.name else 1) for path in files)


def _faked_batch(examples: Any, mode: Any):
    batch = examples.batch(0, 0, 1).to(torch.device("cpu"))
    told = {field.name: getattr(batch, field.name) for field in fields(batch)}
    weightless = {
        name: to_fake(each, mode) for name, each in told.items() if isinstance(each, torch.Tensor)
    }
    if batch.answers:
        weightless["answers"] = tuple(to_fake(each, mode) for each in batch.answers)
    return replace(batch, **weightless)


def _tensors(examples: Any) -> list[torch.Tensor]:
    return [
        each
        for each in (*vars(examples).values(), *examples.away.values())
        if isinstance(each, torch.Tensor)
    ]


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
