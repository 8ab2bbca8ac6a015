"""The memory of the worker processes, planned before they start and measured when they end.

The plan is for one process at its peak. Text encoders and captioner leave memory before the teacher
comes.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import psutil
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ...config import Prepare
from ...config.validation import setting
from ...models import StableDiffusion
from ...models.checks.headers import first_line, read_header
from ...models.checks.weight_shapes import checked_model
from ...models.components import WEIGHTS, weight_files
from ...models.consistency import check_component_settings
from ...models.weights.fake_tensors import LiveMemoryTracker, fake_model, to_fake
from ...run.memory import MIB, MemoryPlan, available_bytes, free_gpu_bytes, gpu_handles
from .ingest import PICTURE_BYTES
from .worker_process import WorkerError
from .workers import count_workers

FP32 = 4  # bytes
# Bytes in which a CPU's kernels work, measured on the embedded base.
KERNEL_BUFFERS = 60 * MIB
# Pages of files, such as code, that a worker reads: a fork begins with none of them mapped.
# Measured on the embedded base.
FILE_PAGES = 60 * MIB
# Chunks whose pictures a worker holds.
CHUNKS = 2


def checked_plan(
    config: Prepare, base: StableDiffusion, captioner: Path | None = None
) -> MemoryPlan | None:
    """Return the plan of a preparation, and print it; None if none can be made.

    Errors: WorkerError if it does not fit
    """
    try:
        plan = plan_memory(config, base, captioner)
    except Exception as failure:
        # a plan that cannot be made forbids no preparation
        print(f"the memory of the preparation could not be planned: {first_line(failure)}")
        return None
    print(plan)
    check_fits(plan, config, base, captioner)
    return plan


def plan_memory(
    config: Prepare, base: StableDiffusion, captioner: Path | None = None
) -> MemoryPlan:
    """Return the plan of a preparation that encodes everything. No device is touched.

    captioner: its folder, None without one
    """
    n_workers = count_workers(config.num_processes)
    gpus = gpu_handles()[:n_workers] if torch.cuda.device_count() else []
    # without gradients, or fake tensors would keep what a backward pass needs
    with torch.no_grad():
        parts, passing = _estimate(config, base, bool(gpus))
    if captioner:
        passing["encoding"] += _captioner_bytes(captioner)
    if gpus:
        return MemoryPlan(parts, passing, processes=1, room=free_gpu_bytes(gpus), shared=0)
    pages = psutil.Process().memory_info()
    libraries = pages.rss - pages.shared + FILE_PAGES
    parts = {"libraries": libraries, **parts, "kernels": KERNEL_BUFFERS}
    return MemoryPlan(parts, passing, n_workers, available_bytes(), libraries)


def _estimate(
    config: Prepare, base: StableDiffusion, gpu: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes of a process by part: those that stay, and those that come and go."""
    encoders = [part for part in base.text_parts if part in WEIGHTS]
    networks = {part: _without_numbers(base, part) for part in ("vae", *encoders)}
    if config.teacher_cache != "none":
        networks[base.denoiser_part] = _without_numbers(base, base.denoiser_part)
    sizes = {part: _weight_bytes(base, part, network, gpu) for part, network in networks.items()}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for network in networks.values():
        fake_model(network, mode)
    pixels = 3 * config.resolution**2
    chunks = CHUNKS * min(PICTURE_BYTES, (config.max_examples or PICTURE_BYTES) * pixels)
    parts = {"VAE": sizes["vae"], "pictures": 0 if gpu else chunks}
    # both are used in turns, and what one has freed the other takes
    activations = max(
        _picture_activations(config, base, networks["vae"], mode),
        _text_activations(config, base, [networks[part] for part in encoders], mode),
    )
    passing = {"encoding": sum(sizes[part] for part in encoders) + activations}
    if base.denoiser_part in networks:
        passing["teacher"] = sizes[base.denoiser_part] + _teacher_activations(
            config, base, networks[base.denoiser_part], mode
        )
    return parts, passing


def _without_numbers(base: StableDiffusion, part: str) -> torch.nn.Module:
    settings = check_component_settings(base.folder, part)
    return checked_model(base.classes[part], settings, weight_files(base.folder, part)).eval()


def _weight_bytes(base: StableDiffusion, part: str, network: torch.nn.Module, gpu: bool) -> int:
    """Return the bytes of a component's weights as a worker holds them, in fp32."""
    files = weight_files(base.folder, part)
    size = FP32 * sum(weight.numel() for weight in network.parameters())
    if gpu or part.startswith("text_encoder") or not _stores_fp32(files):
        return size
    # the file stays mapped beside the convolutions, which get another layout; twice, because a
    # worker with a teacher was measured to hold that much more, for a reason not found yet
    convolutions = [weight for weight in network.parameters() if weight.ndim == 4]
    return size + 2 * FP32 * sum(weight.numel() for weight in convolutions)


def _captioner_bytes(folder: Path) -> int:
    """Return the bytes of a captioner's weights, which a worker holds in fp32."""
    headers = map(read_header, folder.glob("*.safetensors"))
    return FP32 * sum(prod(shape) for header in headers for shape, _ in header.weights.values())


def _stores_fp32(files: list[Path]) -> bool:
    headers = [read_header(file) for file in files if file.suffix == ".safetensors"]
    return any(kind == "F32" for header in headers for _, kind in header.weights.values())


def _rows(config: Prepare) -> int:
    """Return the examples that are encoded at once."""
    return min(config.batch_size, config.max_examples or config.batch_size)


def _peak(mode: FakeTensorMode, networks: list[torch.nn.Module], function: Callable) -> int:
    """Return the bytes at the peak of a call, beside the weights of these networks."""
    weights = [weight for network in networks for weight in network.parameters()]
    with mode, LiveMemoryTracker(weights) as tracker:
        function()
    return tracker.peak


def _picture_activations(
    config: Prepare, base: StableDiffusion, vae: torch.nn.Module, mode: FakeTensorMode
) -> int:
    side = config.resolution
    pixels = to_fake(torch.empty(_rows(config), 3, side, side, device="meta"), mode)
    return _peak(mode, [vae], lambda: base.encode(vae, pixels))


def _text_activations(
    config: Prepare, base: StableDiffusion, encoders: list[torch.nn.Module], mode: FakeTensorMode
) -> int:
    tokenizers = [part for part in base.text_parts if part.startswith("tokenizer")]
    pairs = list(zip(map(base.tokenizer_of, tokenizers), encoders, strict=True))
    # one caption, because many start the tokenizer's threads, and workers are forked after this
    return _rows(config) * _peak(mode, encoders, lambda: base.encode_prompt(["a"], pairs))


def _teacher_activations(
    config: Prepare, base: StableDiffusion, denoiser: torch.nn.Module, mode: FakeTensorMode
) -> int:
    # each example is two rows, with and without its caption
    rows = 2 * max(1, _rows(config) // 2)
    side = config.resolution // base.vae_scale_factor
    text = base.random_text(1, base.text_tokens, torch.Generator())
    x_t = to_fake(torch.empty(rows, base.latent_channels, side, side, device="meta"), mode)
    context, pooled = (
        None if one is None else to_fake(torch.empty(rows, *one.shape[1:], device="meta"), mode)
        for one in text
    )
    t = to_fake(torch.empty(rows, dtype=torch.int64, device="meta"), mode)
    return _peak(mode, [denoiser], lambda: base.predict(denoiser, x_t, t, context, pooled))


def check_fits(
    plan: MemoryPlan, config: Prepare, base: StableDiffusion, captioner: Path | None = None
):
    """Check that a plan fits. Errors: WorkerError with what is needed, and a change that fits."""
    if not plan.fits:
        suggestion = _suggestion(config, base, captioner)
        raise WorkerError(plan.shortage("preparation", suggestion))


def _suggestion(config: Prepare, base: StableDiffusion, captioner: Path | None) -> str:
    """Return the first changes that make a preparation fit, each added to those before it."""
    changes = []
    for name, value in (("num_processes", 1), ("batch_size", 8), ("batch_size", 1)):
        if getattr(config, name) == value:
            continue
        config = replace(config, **{name: value})
        changes = [change for change in changes if name not in change]
        changes.append(setting("prepare", name, value))
        smaller = plan_memory(config, base, captioner)
        if smaller.fits:
            return f"give {' and '.join(changes)}, which needs {smaller.needed / MIB:.0f} MiB"
    return "no number of processes and no batch size makes it fit; take a smaller base"
