"""A training step: seconds, operations, and the true size."""

from statistics import median

from .figures import machine_line

TRAIN = """
## Training's speed

`make bench-train` launches the sides one after the other, in several rounds, on the same processes,
base, batch and machine. *Reference*: the method of DeepSpeedExamples' `training/stable_diffusion`,
written for this benchmark: a second UNet as the teacher, every weight trained with AdamW in fp32,
VAE and text encoder in every step, three UNet passes one after the other. *Floor*: one bare forward
and backward pass of the student, with no loop, optimizer or data around it. Medians of all rounds'
steps.

"""


def train_table(result: dict) -> str:
    """Return the seconds per step and the ratios of each side as a table."""
    lines = ["| side | s a step | examples/s | times the reference |", "|---|---|---|---|"]
    for name, seconds in result["seconds_a_step"].items():
        cells = f"{result['examples_per_s'][name]:.1f} | {result['times_the_reference'][name]:.2f}"
        lines.append(f"| {name} | {seconds:.3f} | {cells} |")
    floor = ", ".join(
        f"{ratio:.2f} in {precision}" for precision, ratio in result["cached_over_floor"].items()
    )
    lines += ["", f"A step on kept answers takes so many times the floor's: {floor}.", ""]
    lines.append(
        f"{result['processes']} processes, {result['batch']} examples each; "
        f"{machine_line(result)}\n"
    )
    return "\n".join(lines)


OPERATIONS = """
## Operations of a step

`make bench-train` also counts the operations of a training step at SD 2.1's true topology, in bf16
with a LoRA, forward and backward, without a GPU: each that would launch a kernel, those that only
copy numbers to another type, and the bytes that they read and write. Compiled, a graph counts as
one launch. These are counts, not times: no GPU has run the step since they changed.

"""


def operations_table(result: dict) -> str:
    """Return a table of the eager counts by commit, and the compiled ones in words."""
    lines = [
        "| step | operations | dtype copies | GiB read and written |",
        "|---|---|---|---|",
    ]
    for teacher in ("live", "cached"):
        rows = {f"at {commit}": counts[teacher] for commit, counts in result["before"].items()}
        for name, row in (rows | {"now": result["eager"][teacher]}).items():
            lines.append(
                f"| {teacher}, {name} | {row['operations']:,} | {row['dtype_copies']:,} "
                f"| {row['gib']:.0f} |"
            )
    lines.append("")
    for teacher, row in result["compiled"].items():
        lines.append(
            f"Compiled whole, a {teacher} step is {row['graphs']} graphs and {row['operations']} "
            f"operations in all, with {row['graph_breaks']} graph breaks and {row['recompiles']} "
            "recompilations after the first steps."
        )
    lines.append(f"\n{result['batch']} examples. {machine_line(result)}\n")
    return "\n".join(lines)


STEPS = """
## The engine's share of a step

`make bench-steps` takes steps on cached answers in one process, 32 examples each, with DeepSpeed's
engine and without it (plain), eagerly and compiled by torch.compile, in rounds that launch every
side once. It draws guided pictures eagerly and compiled, too.

"""


def steps_table(result: dict) -> str:
    """Return a table of the engine's share, and what compiling gains and when it pays."""
    training = result["training"]
    lines = [
        "| side | seconds a step | of plain, median of the rounds [lowest, highest] | compiling |",
        "|---|---|---|---|",
    ]
    for name, row in training.items():
        shares = row["of_plain"]
        compiling = f"{row['compile_seconds']:.0f} s" if row["compile_seconds"] else "–"
        lines.append(
            f"| {name} | {row['seconds']:.3f} | {median(shares):.2f} [{min(shares):.2f}, "
            f"{max(shares):.2f}] | {compiling} |"
        )
    lines.append("")
    eager = training["ZeRO 0"]["seconds"]
    for name, row in training.items():
        if row["compile_seconds"]:
            pays = when_it_pays(row["compile_seconds"], eager - row["seconds"], "steps")
            lines.append(f"{name}: {eager / row['seconds']:.2f} times as fast as ZeRO 0; {pays}.")
    drawn = result["sampling"]
    gain = drawn["eager"] - drawn["compiled"]
    lines.append(
        f"Sampling: {drawn['eager']:.3f} s a guided picture, {drawn['compiled']:.3f} s compiled; "
        f"{when_it_pays(drawn['until_ready'], gain, 'pictures')}."
    )
    if before := result["before"]:
        times = (f"{kind} {before[kind]['times']:.2f}" for kind in ("live", "cached"))
        lines.append(f"Times as fast as {before['commit']}: {', '.join(times)}.")
    lines.append(
        f"\n{result['batch']} examples in {result['mixed_precision']}. {machine_line(result)}\n"
    )
    return "\n".join(lines)


def when_it_pays(seconds: float, gain: float, unit: str) -> str:
    """Return after how many units seconds are regained. gain: seconds of each unit."""
    if gain <= 0:
        return f"it never pays, after {seconds:.0f} s"
    return f"its {seconds:.0f} s pay after {seconds / gain:,.0f} {unit}"


TRUE_SIZE = """
## Stable Diffusion's true size

`make bench-true-size` runs a whole training on a UNet of SD 2.1's size with random weights: bf16,
LoRA of rank 16 on attention and feed-forward, latents of 512 pixels, batch 1, gradient
checkpointing, a live teacher, one process.

"""


def true_size_line(result: dict) -> str:
    """Return the seconds of a step, and the memory beside the reference method's."""
    return (
        f"About {median(result['seconds']):.0f} s a step. At its peak it takes "
        f"{result['measured_mib']:.0f} MiB, libraries included "
        f"({result['planned_mib']:.0f} planned); "
        "the reference method's weights, gradients, optimizer and activations alone are "
        f"{result['reference_planned_mib']:.0f} MiB by the same plan, so ours is "
        f"{result['share']:.2f} of it. {machine_line(result)}\n"
    )
