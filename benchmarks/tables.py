"""The texts and tables of the benchmarks' page, a section for each result."""

from statistics import median

MAIN_JOB = """
## The main job

`make bench` runs each recipe from nothing, as `onepass run` does, and measures its pictures.

*Caption first*: the share of held-out captions whose picture's CLIP score puts the caption before
fifteen near misses with one attribute changed. *Guidance recovered*: (tuned − unguided) / (guided −
unguided) of those rates. In brackets, 95 % bootstrap intervals over the captions.

"""
TRAIN = """
## Training's speed

`make bench-train` launches the sides one after the other, in several rounds, on the same processes,
base, batch and machine. *Reference*: the method of DeepSpeedExamples' `training/stable_diffusion`,
written for this benchmark: a second UNet as the teacher, every weight trained with AdamW in fp32,
VAE and text encoder in every step, three UNet passes one after the other. *Floor*: one bare forward
and backward pass of the student, with no loop, optimizer or data around it. Medians of all rounds'
steps.

"""
RANKS = """
## Rank and layers

`make bench-ranks` trains adapters of every rank on every preset of layers, all on the same kept
answers. Guidance recovered, with its 95 % interval; the mean loss of the last quarter of the steps;
the size of the file. The recovered shares of so few captions differ by chance; the losses, which
are of the same batches, do not: more layers at a low rank learn more, for the same size, than few
layers at a high one.

"""
TRUE_SIZE = """
## Stable Diffusion's true size

`make bench-true-size` runs a whole training on a UNet of SD 2.1's size with random weights: bf16,
LoRA of rank 16 on attention and feed-forward, latents of 512 pixels, batch 1, gradient
checkpointing, a live teacher, one process.

"""
MACHINES = """
## Processes, stages, checkpoints

`make bench-machines` trains on kept answers, the sides in turn, medians of all rounds' steps.

"""
SOAK = """
## A long training, killed many times

`make bench-soak`: checkpoints every 50 steps, SIGKILL to one rank, to the parent, to all, in turn.

"""
RUNS = """
## The cost of the layer of runs

`make bench-runs`: a shrunken demo from nothing, its three notebooks by papermill alone in one
process, and by `onepass run`, in turns; then a folder with many runs, listed by commands that are
timed from start to end, the slowest of five.

"""
KILLS = """
## A run killed at random moments

`make bench-kills`: a shrunken demo is started, killed by SIGKILL at a moment drawn from its whole
time (in turn: the command's process group, every process of the run), and resumed.

"""
GPU = """
## On GPUs

`make bench-gpu`: Stable Diffusion 2.1's true size, random weights, 512 pixels, 8 examples a process
unless the side says another number, all GPUs. The share is of the rate that a large product of bf16
matrices reaches on the same machine. *Compiled*: by torch.compile, the UNet's blocks or the whole.

"""
STEPS = """
## The engine's share of a step

`make bench-steps` takes steps on cached answers in one process, 32 examples each, with DeepSpeed's
engine and without it (plain), eagerly and compiled by torch.compile, in rounds that launch every
side once. It draws guided pictures eagerly and compiled, too.

"""
OPERATIONS = """
## Operations of a step

`make bench-train` also counts the operations of a training step at SD 2.1's true topology, in bf16
with a LoRA, forward and backward, without a GPU: each that would launch a kernel, those that only
copy numbers to another type, and the bytes that they read and write. Compiled, a graph counts as
one launch. These are counts, not times: no GPU has run the step since they changed.

"""


FEW_STEPS = """
## Few steps

`make bench-few-steps` trains the adapters from nothing, and compares them with their base on 500
held-out captions. *Of guided*: the rate as a share of guided's. *FID* is from the data's pictures
of the same captions, in the embedded CLIP's space. *Diversity*: the mean distance between four
pictures of one prompt, in latents.

"""
FIDELITY = """
## The loss of guidance, its timesteps and its states

`make bench-fidelity` trains adapters in different ways, for the same time, on the same examples,
with two seeds each. *Distance ratio*: the mean squared distance of latents to guided's over that of
unguided, with its 95 % interval over captions; in parentheses each seed's. *Nearer*: the share of
pictures that came nearer to guided's.

"""
BASE_PRECISION = """
## Frozen weights in fewer bits

`make bench-base-precision` trains adapters on the embedded base as it is and packed
(`train.base_precision`), the same steps on the same examples, and samples all of them on the base
as it is. *Distance ratio*: the mean squared distance of latents to guided's over that of unguided,
with its 95 % interval over captions. *Weights*: the frozen ones in a training's memory.

"""
PREPARE = """
## Preparation

`make bench-prepare` writes its own images, and prepares them on two processes.

"""


def fidelity_text(result: dict) -> str:
    """Return fidelity to guided by the way of training."""
    lines = [
        f"{result['captions']} held-out captions, {result['seconds']:.0f} s of training each.\n",
        "| training | steps | distance ratio | nearer | guidance recovered |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        seeds = ", ".join(f"{value:.3f}" for value in row["by_seed"])
        distance, gain = fidelity_cells(row)
        lines.append(f"| {name} | {row['steps']} | {distance} ({seeds}) | {gain} |")
    return "\n".join([*lines, f"\n{machine_line(result)}\n"])


def base_precision_text(result: dict) -> str:
    """Return fidelity to guided and memory by the storage of the frozen weights."""
    lines = [
        f"{result['captions']} held-out captions, {result['steps']} steps each.\n",
        "| base_precision | weights | distance ratio | nearer | guidance recovered |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        lines.append(f"| {name} | {row['base_mib']:.1f} MiB | {' | '.join(fidelity_cells(row))} |")
    return "\n".join([*lines, f"\n{machine_line(result)}\n"])


def fidelity_cells(row: dict) -> tuple[str, str]:
    """Return the distance ratio with its interval, and the cells of what came nearer."""
    ratio = row["distance_ratio"]
    distance = f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    return distance, f"{100 * row['nearer']:.0f} % | {percent(row['recovered'], 'value')}"


def few_steps_text(result: dict) -> str:
    """Return quality by contender, times, both adapters' scales, and the parts of a step."""
    rows = [
        "| contender | NFE | caption first | of guided | FID | diversity | seconds a picture |",
        "|---|---|---|---|---|---|---|",
    ]
    contenders = result.get("compare", {})
    for name, row in contenders.items():
        rate = row["caption_first"]
        guided = contenders["guided"]["caption_first"]["rate"]
        cells = (
            name,
            f"{row['nfe']:g}",
            percent(rate),
            f"{100 * rate['rate'] / guided:.1f} %",
            f"{row['fid']['value']:.4f}",
            f"{row['diversity']['value']:.2f}",
            f"{row['seconds']:.3f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    rows += ["", *_training_lines(result), "", *_together_rows(result), *_cost_lines(result), ""]
    return "\n".join(rows) + machine_line(result) + "\n"


def _training_lines(result: dict) -> list[str]:
    lines = []
    for name, figures in result.get("trainings", {}).items():
        line = f"`{name}`: {minutes(figures['training_seconds'])} of training"
        # those that are run whole
        if figures["seconds"]:
            line += f", {minutes(figures['seconds'])} from start to report"
        lines.append(line)
    return ["; ".join(lines) + "."]


def _together_rows(result: dict) -> list[str]:
    if "together" not in result:
        return []
    rows = result["together"]["rows"]
    dials = sorted({row["guidance"] for row in rows})
    lines = [
        "The adapter of `few-steps` beside the guidance adapter of `demo`, each at its own scale "
        "λ: right caption first, and FID, of 150 captions in 4 passes.",
        "",
        "| λ of few steps | " + " | ".join(f"guidance {dial:g}" for dial in dials) + " |",
        "|---" * (len(dials) + 1) + "|",
    ]
    for few in sorted({row["few_steps"] for row in rows}):
        cells = [
            f"{100 * row['caption_first']['rate']:.0f} %, {row['fid']['value']:.4f}"
            for row in rows
            if row["few_steps"] == few
        ]
        lines.append(f"| {few:g} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cost_lines(result: dict) -> list[str]:
    if "cost" not in result:
        return []
    cost = result["cost"]
    parts = ", ".join(f"{name} {1000 * time:.0f} ms" for name, time in cost["seconds"].items())
    return [
        f"A training step of {cost['batch']} examples in one process of one thread, forward and "
        f"backward: {parts}. A step of distribution takes {cost['times_guidance']:.2f} times a "
        "step of guidance.",
        "",
    ]


def prepare_text(result: dict) -> str:
    """Return the rates, the second run, memory and reading as text."""
    rates = [
        f"At {side} pixels it encodes {rate['prepare']:.0f} images a second, with reading, "
        f"decoding and filters: {rate['share']:.2f} of a bare loop of VAE-encode batches on "
        f"pictures in memory ({rate['bare']:.0f}), {rate['share_of_kept']:.2f} of one that keeps "
        f"freed memory, as the encoding processes do ({rate['bare_kept']:.0f})."
        for side, rate in result["rates"].items()
    ]
    rerun, memory = result["again"], result["memory"]
    few, many = memory["above_mib"]
    return "\n".join(
        [
            *rates,
            "",
            f"{rerun['count']:,} images: {rerun['first']:.1f} s the first time, "
            f"{rerun['second']:.2f} s the second, {rerun['times']:.0f} times faster; "
            f"{rerun['changed']:.2f} s after one image was changed, of which "
            f"{rerun['changed_encoded']} was encoded again.",
            "",
            f"Memory above a run's of two images: {memory['above_mib'][few]:.0f} MiB at "
            f"{int(few):,} examples, {memory['above_mib'][many]:.0f} MiB at {int(many):,}; these "
            f"take {memory['time_ratio']:.1f} times as long.",
            "",
            f"Training reads {result['reading']:,.0f} latents a second of a warm cache, shuffled, "
            "in one process.",
            "",
            *scale_lines(result.get("scale")),
            machine_line(result) + "\n",
        ]
    )


def scale_lines(scale: dict | None) -> list[str]:
    """Return the time and memory of a small and a large drawn data set; none if not measured."""
    if not scale:
        return []
    (few, small), (many, large) = scale.items()
    return [
        f"Drawn by code: {int(few):,} examples in {small['seconds']:.0f} s and "
        f"{small['mib']:.0f} MiB, {int(many):,} in {large['seconds']:.0f} s and "
        f"{large['mib']:.0f} MiB.",
        "",
    ]


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


def ranks_table(result: dict) -> str:
    """Return a table with a row for each preset and a column for each rank."""
    ranks = list(next(iter(result["recovered"].values())))
    lines = [
        "| layers | " + " | ".join(f"rank {rank}" for rank in ranks) + " |",
        "|---" * (len(ranks) + 1) + "|",
    ]
    for targets, row in result["recovered"].items():
        cells = [
            f"{percent(cell, 'value')}<br>{cell['loss']:.4f}, {cell['bytes'] / 2**20:.1f} MiB"
            for cell in row.values()
        ]
        lines.append(f"| {targets} | " + " | ".join(cells) + " |")
    rates = ", ".join(f"{name} {100 * rate:.0f} %" for name, rate in result["rates"].items())
    lines += [
        "",
        f"{result['steps']} steps; {result['captions']} captions, of which first: {rates}; "
        f"{machine_line(result)}\n",
    ]
    return "\n".join(lines)


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


def machine_line(result: dict) -> str:
    """Return the machine, torch and date of a result."""
    machine = result["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus}"
    return f"{hardware}; torch {result['versions']['torch']}; {result['date']}."


def recipes_table(results: list[dict]) -> str:
    """Return a Markdown table with a row for each recipe's result, and a paragraph for each."""
    lines = [
        "| recipe | training | run | unguided | guided | tuned | guidance recovered "
        "| tuned : guided time | NFE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        rates = [
            percent(result["contenders"][name]["caption_first"])
            for name in ("unguided", "guided", "tuned")
        ]
        train, contenders = result["train"], result["contenders"]
        cache_seconds = result["cache_seconds"]
        training = train["objective"]
        if training == "guidance":
            training += f", {train['teacher']} teacher"
        is_timed = result["seconds"] is not None
        took = (
            f"; {minutes(result['stages']['train'])}, cache {cache_seconds:.0f} s"
            if is_timed
            else ""
        )
        sides = (contenders[name]["seconds"] for name in ("tuned", "guided"))
        cells = [
            f"`{result['recipe']}`",
            f"{training}, {train['steps']} steps, rank {train['rank']}{took}",
            minutes(result["seconds"]) if is_timed else "–",
            *rates,
            percent(result["guidance_recovered"], "value"),
            "{:.3f} : {:.3f} s = {:.2f}".format(*sides, result["time_ratio"]) if is_timed else "–",
            f"{contenders['tuned']['nfe']:g} : {contenders['guided']['nfe']:g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *map(recipe_paragraph, results)])


def recipe_paragraph(result: dict) -> str:
    """Return the captions, machine and the rest of a recipe's result, as a paragraph."""
    text = (
        f"`{result['recipe']}`: w = {result['w_train']:g}, {result['captions']} captions; "
        f"{machine_line(result)}"
    )
    if result["held_out_loss"]:
        text += " Held-out loss {:.4f} at first, {:.4f} at the end.".format(
            *result["held_out_loss"]
        )
    if result["shows_the_unseen"]:
        shares = ", ".join(
            f"{name} {100 * share:.0f} %" for name, share in result["shows_the_unseen"].items()
        )
        text += (
            " Pictures nearest to the kind that the base does not know, by CLIP's image features: "
            f"{shares}."
        )
    if result["seconds"] is None:
        text += " Not timed: the machine did other work beside it."
    return text + f" The picture-book drew {result['scenes_per_second']:,} scenes a second.\n"


def percent(share: dict | None, key: str = "rate") -> str:
    if share is None:
        return "–"
    interval = (
        "" if share["low"] is None else f" [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"
    )
    return f"{100 * share[key]:.0f} %{interval}"


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def machines_text(result: dict) -> str:
    """Return scaling, the stages' table, checkpoints and memory as text."""
    names = list(result["stages"]["embedded"])
    lines = ["| base | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for base, row in result["stages"].items():
        cells = [f"{cell['seconds']:.3f} s, {cell['peak_mib']:.0f} MiB" for cell in row.values()]
        lines.append(f"| {base} | " + " | ".join(cells) + " |")
    one, saved = result["scaling"], result["checkpoints"]
    lines += [
        "",
        "A step and the peak memory of a process. Two processes on two cores do "
        f"{one['efficiency']:.2f} of twice what one",
        "does on one core, with the same work for each "
        f"({one['two']:.1f} and {one['one']:.1f} examples a second, ZeRO 0).",
        "",
        f"A checkpoint of {saved['mib']:.1f} MiB takes {saved['seconds']:.2f} s: "
        f"at one a minute {100 * saved['share']:.1f} %",
        f"of the time. Watching takes {100 * saved['watch_share']:.2f} % of a core.",
        "",
        machine_line(result) + "\n",
    ]
    return "\n".join(lines)


def soak_text(result: dict) -> str:
    """Return the outcome of the long training as text."""
    same = "the same file as" if result["same_adapter"] else "NOT the same file as"
    left = ", ".join(result["left_over"]) or "nothing"
    return (
        f"{result['steps']} steps, killed {result['kills']} times: the adapter is {same} that of a "
        f"training that was never killed; left over: {left}; memory of the uninterrupted one grew "
        f"by {100 * result['memory_growth']:.1f} %. {machine_line(result)}\n"
    )


def runs_text(result: dict) -> str:
    """Return overhead and listing as text."""
    bare, ours = (
        {kind: median(times[kind] for times in result[side]) for kind in result["overhead"]}
        for side in ("bare", "onepass")
    )
    more = result["overhead"]
    lists = "; with ".join(map(list_times, result.get("listed", [result])))
    return (
        f"papermill alone {bare['seconds']:.1f} s, `onepass run` {ours['seconds']:.1f} s, "
        f"medians of {result['rounds']} rounds:\n"
        f"{more['seconds']:.1f} s more, with the record, the log, the pages and the index. "
        "In processor seconds of that\n"
        f"process, without its kernels: {bare['processor']:.1f} and {ours['processor']:.1f}, "
        f"{more['processor']:.1f} s more. With\n"
        f"{lists}. {machine_line(result)}\n"
    )


def list_times(result: dict) -> str:
    """Return the time that the listing of so many runs takes, as text."""
    size = f", a page of {result['index_bytes'] / 1e6:.1f} MB" if "index_bytes" in result else ""
    return (
        f"{result['runs']:,} runs, `onepass list` takes {result['list_seconds']:.2f} s and "
        f"`onepass index` {result['index_seconds']:.2f} s{size}"
    )


def kills_text(result: dict) -> str:
    """Return the number of runs that ended well, and the stages of the kills, as text."""
    stages = [
        next((stage for stage, status in trial["stages"].items() if status == "running"), "")
        for trial in result["trials"]
    ]
    counts = ", ".join(
        f"{stages.count(stage)} in {stage}" for stage in ("prepare", "train", "compare")
    )
    zero = "".join(
        f", {result['moments'] // len(result['zero_stages'])} at ZeRO {stage}"
        for stage in result.get("zero_stages", ())
    )
    return (
        f"Of {result['moments']} moments in {result['seconds']:.0f} s{zero}, "
        f"{counts} and the others between them,\n"
        f"{result['ended_the_same']} ended done, with the same adapter and pictures as without a "
        f"kill. {machine_line(result)}\n"
    )


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


def sampling_lines(sampling: dict) -> list[str]:
    """Return a table of sampling by way."""
    lines = ["", "| sampling | pictures/s | seconds until ready | from fp32 |", "|---|---|---|---|"]
    for name, row in sampling.items():
        lines.append(
            f"| {name} | {row['pictures_per_s']:.2f} | {row['seconds_until_ready']:.0f} "
            f"| {100 * row['difference']:.2g} % |"
        )
    return lines


def gpu_table(result: dict) -> str:
    """Return a table with a row for each side, then memory and the demo's time."""
    lines = [
        "| side | examples/s | times the reference | peak memory | share |",
        "|---|---|---|---|---|",
    ]
    reference = result["sides"].get("reference, fp32", {}).get("examples_per_s")
    for name, side in result["sides"].items():
        if "failed" in side:
            lines.append(f"| {name} | {side['failed']} | | | |")
            continue
        times = f"{side['examples_per_s'] / reference:.2f}" if reference else "–"
        share = f"{100 * side['share_of_matmul']:.0f} %"
        lines.append(
            f"| {name} | {side['examples_per_s']:.2f} | {times} "
            f"| {side['peak_mib'] / 1024:.1f} GiB | {share} |"
        )
    skipped = f" Skipped: {', '.join(result['skipped'])}." if result["skipped"] else ""
    if memory := result["memory"]:
        peaks = (
            memory.get("failed")
            or f"{memory['planned_mib']:.0f} MiB planned, {memory['measured_mib']:.0f} measured"
        )
        lines += [
            "",
            "A process of a whole training of that size (batch 1, gradient checkpointing) at its "
            f"peak: {peaks}.",
        ]
    for name, side in result["sides"].items():
        if profile := side.get("profile"):
            lines += [
                "",
                f"{name}: {profile['launches_a_step']:.0f} launches a step, "
                f"{100 * profile['copies']:.0f} % of the kernels' time copies, "
                f"{100 * profile['gaps']:.0f} % of the time without a kernel.",
            ]
    if sampling := result.get("sampling"):
        lines += sampling_lines(sampling)
    # of an older benchmark
    demo = result.get("demo_seconds")
    seconds = f"The demo recipe, start to report: {demo} s." if demo else ""
    lines += ["", f"{seconds}{skipped} {machine_line(result)}\n".lstrip()]
    return "\n".join(lines)


LAB = """
## The comparison lab

`make bench-lab` runs `3_compare.ipynb` through papermill many times, samples the reference's ten
prompts by the lab and by a bare stock pipeline in turns, and runs the recipe `frontier`: guidance
on a part of the steps (selective-N, arXiv 2305.09847) beside the trained adapter, all from one
`onepass run`.

"""


def lab_text(result: dict) -> str:
    """Return the measured parts of the lab as text and a table."""
    lines = []
    if part := result.get("headless"):
        lines.append(
            f"{part['runs']} headless comparisons in a row: {part['failed']} failed, "
            f"{part['hung']} hung; {part['seconds']:.1f} s each in the median."
        )
    if part := result.get("overhead"):
        over = ", ".join(f"{name} {100 * side['over']:+.1f} %" for name, side in part.items())
        lines.append(
            "Over a bare stock pipeline with the same settings, pictures and latents written: "
            f"{over}."
        )
    if part := result.get("frontier"):
        lines.append(
            f"The recipe took {part['seconds']:.0f} s. w = {part['w_train']:g}; "
            "[ , ]: 95 % intervals.\n"
        )
        lines.append(
            "| contender | right caption first | CLIP score | NFE | s a picture "
            "| time saved | published |"
        )
        lines.append("|---|---|---|---|---|---|---|")
        for name, contender in part["contenders"].items():
            rate, score = contender["caption_first"], contender["clip_score"]
            saved = part["saved"][name]["time"]
            published = (
                f"{100 * part['published'][name]:.1f} %" if name in part["published"] else ""
            )
            clip = f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]"
            lines.append(
                f"| {name} | {percent(rate)} | {clip} | {contender['nfe']:g} "
                f"| {contender['seconds']:.3f} | {100 * saved:.0f} % | {published} |"
            )
        turns = ", ".join(f"{turn['target']:g}: {turn['w']:.2f}" for turn in part["dial"]["turns"])
        # none was measured of some adapters
        if turns:
            lines.append(f"\nThe dial, the guidance scale asked for and the nearest one: {turns}.")
    return "\n".join([*lines, f"\n{machine_line(result)}\n"])


OWN_IMAGES = """
## Pictures of one's own

`make bench-own-images`: the recipe own-images on twenty icons of animals, in a style that no
training of the base saw.

"""


def own_images_text(result: dict) -> str:
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["shares"].items())
    return (
        f"{result['pictures']} pictures, {result['steps']} steps, {result['seconds'] / 60:.0f} "
        f"minutes in all. Of {result['sampled']} sampled pictures, nearest to other animals of "
        "that style, by the features of the embedded CLIP, and not to a kind of scene that the "
        f"base knows: {shares}. The VAE gives the pictures back with {result['psnr_db']:.1f} dB "
        f"PSNR, the worst with {result['worst_psnr_db']:.1f} dB. {machine_line(result)}\n"
    )


SECTIONS = {
    "fidelity": (FIDELITY, fidelity_text),
    "base-precision": (BASE_PRECISION, base_precision_text),
    "few-steps": (FEW_STEPS, few_steps_text),
    "own-images": (OWN_IMAGES, own_images_text),
    "train": (TRAIN, train_table),
    "operations": (OPERATIONS, operations_table),
    "steps": (STEPS, steps_table),
    "ranks": (RANKS, ranks_table),
    "prepare": (PREPARE, prepare_text),
    "lab": (LAB, lab_text),
    "machines": (MACHINES, machines_text),
    "soak": (SOAK, soak_text),
    "runs": (RUNS, runs_text),
    "kills": (KILLS, kills_text),
    "true-size": (TRUE_SIZE, true_size_line),
    "gpu": (GPU, gpu_table),
}
"""The heading and the rendering function of each result that is not a recipe's."""
