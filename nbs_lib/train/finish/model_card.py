"""The model card beside the trained weights."""

from ...config import Train
from ...files import write_atomic
from ...models.origin import front_matter, license_row
from ...models.sampling_recipe import usage_code, usage_text, warning
from ...run.run import Run

CARD = """{front}
# {name}

{warning}{summary}: {usage}.

{example}

| | |
|---|---|
| base | `{base}`, hash `{base_hash:.16}` |
| license | {license} |
{rows}
| loss, mean of its last tenth | {loss:.5f} |
| loaded back by stock diffusers | predictions differ by {stock_difference:.2g} at most |
"""
GUIDANCE_SUMMARY = (
    "{kind} that makes one pass predict what guidance at w = {w_train:g} needs two passes for"
)
SUMMARIES = {
    "guidance": GUIDANCE_SUMMARY,
    "finetune": "{kind} trained on images of its own",
    "consistency": "{kind} that samples in few steps",
    "distribution": "{kind} that samples in few steps",
}


def write_card(run: Run, config: Train, metadata: dict, result: dict):
    """Write README.md beside the weights.

    metadata: as stored with the weights.
    result: of the training, as `finalize` writes it.
    """
    full = config.method == "full"
    folder = run.model if full else run.adapter
    # the hub sorts models by these tags
    if full:
        kind = "A Stable Diffusion"
        tags = []
    else:
        kind = "A DoRA" if config.method == "dora" else "A LoRA"
        tags = ["lora"]
    tags += ["text-to-image", "stable-diffusion", config.objective]
    values = metadata | result | {"name": run.name, "kind": kind}
    rows = training_rows(config, metadata, result)
    card = CARD.format(
        **values,
        front=front_matter(metadata, tags, "finetune" if full else "adapter"),
        warning=warning(metadata),
        license=license_row(metadata),
        summary=SUMMARIES[config.objective].format(**values),
        usage=usage_text(metadata),
        example=usage_code(metadata, folder.name, full),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
    )
    write_atomic(folder / "README.md", card)


def training_rows(config: Train, metadata: dict, result: dict) -> dict[str, str]:
    """Return the rows of the card's table about the training."""
    rows = {"objective": config.objective}
    # finetune has no teacher
    if config.objective != "finetune":
        w = f"{config.guidance_scale:g}"
        w += f" to {config.guidance_scale_max:g}" if config.guidance_scale_max else ""
        rows["guidance scale of the teacher"] = w
    if config.method != "full":
        rows["method"] = (
            f"{config.method}, rank {config.rank}, alpha {config.alpha:g} (the scale is folded "
            f"into the weights), on {config.target_modules} layers"
        )
    # a product, because the batch of a step is what a learning rate belongs to
    accumulated = config.gradient_accumulation_steps
    passes = f" × {accumulated}" if accumulated > 1 else ""
    rows["steps, batch, learning rate"] = (
        f"{config.steps}, {config.batch_size} × {result['processes']}{passes}, "
        f"{config.learning_rate:g} ({config.optimizer}, {config.lr_scheduler})"
    )
    # the last step's are not always the best
    rows["weights"] = result["weights_source"]
    # not measured if nothing was held out
    if metadata["dial"]:
        rows["adapter scale for a guidance scale"] = "; ".join(
            f"w = {w:g}: λ = {scale:g}" for w, scale in metadata["dial"]
        )
    rows["launched as"] = f"{engine_summary(result)}, {config.mixed_precision}"
    return rows


def weights_source(result: dict, steps: int) -> str:
    """Return the step that saved weights are from, and why, in words.

    result: `last_step`, `weights_step` and `ended_early` of `finalize`.
    steps: that were asked for.
    """
    step = result["weights_step"]
    last = result["last_step"]
    text = f"of step {step}, the last of {steps}" if step == steps else f"of step {step} of {steps}"
    if step < last:
        text += f", whose held-out loss was clearly lower than that of the last step, {last}"
    if result["ended_early"]:
        text += f"; ended there because {result['ended_early']}"
    return text


def engine_summary(result: dict) -> str:
    """Return the engine and the processes of a training in words."""
    # None without DeepSpeed; 0 is a stage
    stage = result["zero_stage"]
    engine = "no DeepSpeed" if stage is None else f"DeepSpeed, ZeRO {stage}"
    processes = result["processes"]
    hosts = f" on {result['nodes']} hosts" if result["nodes"] > 1 else ""
    seconds = result.get("compile_seconds")
    # a record of an earlier version has none
    compiled = "" if seconds is None else f", compiled in {seconds:.0f} s"
    return f"{engine}, {processes} process{'es' * (processes > 1)}{hosts}{compiled}"
