"""The parts of a training as a table: what is frozen, what learns, from what, and on what."""

from typing import Any

import torch

from ...cache.format import read_cache_metadata
from ...config import Train
from ...images.html import html_table
from ...launch.preflight import check_machine, process_count
from ...run.run import Run
from ..data.dataset import Examples
from ..memory.dry_run import DryRunSizes, dry_run
from ..memory.estimate import MIB, MemoryPlan, plan_memory
from ..resolve import resolve_choices

METHODS = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA"}
OPTIMIZERS = {"adamw": "AdamW", "adamw_8bit": "AdamW in eight bits", "prodigy": "Prodigy"}
STARTED = {"notebook": "forked from this kernel", "subprocess": "started by accelerate"}
TEACHERS = {
    "guidance": "one pass with the caption has to predict what guidance at {w} predicts from two",
    "finetune": "the denoising of the examples themselves; no teacher",
    "consistency": "one answer along the whole way of a teacher that is guided at {w}",
    "distribution": "in {steps} steps, what a teacher that is guided at {w} finds nothing to "
    "change in",
}


def parts_table(config: Train) -> str:
    """Return the parts of a training as an HTML table. No model is loaded, no device touched.

    Errors: FileNotFoundError without a prepared cache; LaunchError if this machine cannot train so.
    """
    # host 0 may still prepare
    if config.node_rank:
        return "<p>The notebook of host 0 shows the parts.</p>"
    run = Run(config.run)
    run.require("prepare")
    check_machine(config)
    config = resolve_choices(config, run.cache)
    processes = process_count(config)
    metadata = read_cache_metadata(run.cache)
    *networks, memory = measured_rows(config, run, metadata["base"])
    rows = [
        *networks,
        ("objective", describe_objective(config)),
        ("data", describe_data(Examples(run.cache, config), metadata)),
        ("steps", describe_steps(config, processes * config.num_nodes)),
        ("optimizer", describe_optimizer(config)),
        ("engine", describe_engine(config, processes)),
        memory,
    ]
    return html_table("", ("part", "in this training"), rows)


def measured_rows(config: Train, run: Run, base: str) -> list[tuple[str, str]]:
    """Return the rows that a dry run has measured: the base, what learns, and the memory."""
    try:
        # the training plans with the same sizes, which are measured once
        sizes = dry_run(config, run.cache, torch.cuda.device_count() > 0)
        plan = plan_memory(config, run.cache, process_count(config))
    except RuntimeError as failure:
        # no reason not to train
        return [("base", base), ("what learns", config.method), ("memory", str(failure))]
    parameters = f"{sizes.denoiser:,} parameters in {config.mixed_precision}"
    return [
        ("base", f"{base}: a denoiser of {parameters}"),
        ("what learns", describe_learning(config, sizes)),
        ("memory", describe_memory(plan)),
    ]


def describe_learning(config: Train, sizes: DryRunSizes) -> str:
    """Return the trained weights in words."""
    if config.method == "full":
        return f"every weight of the denoiser, {sizes.learned:,} parameters"
    share = 100 * sizes.learned / sizes.denoiser
    return (
        f"a {METHODS[config.method]} of rank {config.rank}: {sizes.learned:,} parameters on "
        f"{sizes.layers} layers ({config.target_modules}), {share:.2g} % of the denoiser's"
        f"{describe_fake_score(sizes.trained - sizes.learned)}"
    )


def describe_fake_score(count: int) -> str:
    """Return the weights that learn beside those that are saved. count: of them, 0 for none."""
    if not count:
        return ""
    return f"; beside it a fake score of {count:,}, which is thrown away at the end"


def describe_objective(config: Train) -> str:
    """Return the objective, and what it asks for."""
    w = f"w = {config.guidance_scale:g}"
    if config.guidance_scale_max:
        w += f" to {config.guidance_scale_max:g}"
    steps = " or ".join(map(str, config.few_steps))
    text = f"{config.objective}: {TEACHERS[config.objective].format(w=w, steps=steps)}"
    return text + ("; the teacher's answers are cached" if config.teacher == "cached" else "")


def describe_data(examples: Examples, metadata: dict[str, Any]) -> str:
    """Return the examples by their use, and the shapes of their latents."""
    shapes = " and ".join(shape.replace(" ", " × ") for shape in metadata["shapes"])
    kind = "examples with" if metadata["images"] else "prompts for"
    prior = f", {len(examples.prior):,} of the prior" if len(examples.prior) else ""
    held_out = f"{len(examples.held_out):,} are held out"
    return f"{len(examples.training):,} {kind} latents of {shapes}{prior}; {held_out}"


def describe_steps(config: Train, processes: int) -> str:
    """Return the steps, and the examples of each. processes: of all hosts."""
    passes = config.gradient_accumulation_steps
    total = config.batch_size * passes * processes
    accumulated = f" × {passes} passes" if passes > 1 else ""
    factors = f"batches of {config.batch_size}{accumulated} × {count_processes(processes)}"
    return f"{config.steps:,} of {total} examples each: {factors}"


def describe_optimizer(config: Train) -> str:
    """Return the optimizer, and the course of its learning rate."""
    warmup = config.lr_warmup_steps
    course = config.lr_scheduler.replace("_", " ")
    course += f" after {warmup} steps of warmup" if warmup else ""
    mean = f"; saved is a moving average of decay {config.ema_decay:g}" if config.ema_decay else ""
    return f"{OPTIMIZERS[config.optimizer]}, learning rate {config.learning_rate:g}, {course}{mean}"


def describe_engine(config: Train, processes: int) -> str:
    """Return the engine, and its processes on this host."""
    offloaded = ", offloaded" if config.offload else ""
    zero = f"DeepSpeed, ZeRO {config.zero_stage}{offloaded}"
    engine = zero if config.deepspeed else "plain data parallelism"
    hosts = f" on each of {config.num_nodes} hosts" if config.num_nodes > 1 else ""
    return f"{engine}; {count_processes(processes)}{hosts}, {STARTED[config.launcher]}"


def count_processes(count: int) -> str:
    """Return a number of processes in words."""
    return f"{count} process{'es' * (count > 1)}"


def describe_memory(plan: MemoryPlan) -> str:
    """Return the planned memory in words."""
    text = f"{plan.peak / MIB:,.0f} MiB planned for a process at its peak"
    if plan.processes > 1:
        text += f", {plan.needed / MIB:,.0f} MiB for {plan.processes}"
    return f"{text}, of {plan.room / MIB:,.0f} that are free; most of it for {plan.largest!r}"
