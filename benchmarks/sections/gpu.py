"""Training and sampling on GPUs."""

from .figures import machine_line

GPU = """
## On GPUs

`make bench-gpu`: Stable Diffusion 2.1's true size, random weights, 512 pixels, 8 examples a process
unless the side says another number, all GPUs. The share is of the rate that a large product of bf16
matrices reaches on the same machine. *Compiled*: by torch.compile, the UNet's blocks or the whole.

"""


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


def sampling_lines(sampling: dict) -> list[str]:
    """Return a table of sampling by way."""
    lines = ["", "| sampling | pictures/s | seconds until ready | from fp32 |", "|---|---|---|---|"]
    for name, row in sampling.items():
        lines.append(
            f"| {name} | {row['pictures_per_s']:.2f} | {row['seconds_until_ready']:.0f} "
            f"| {100 * row['difference']:.2g} % |"
        )
    return lines
