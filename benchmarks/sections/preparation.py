"""Preparation: rates, memory, reading."""

from .figures import machine_line

PREPARE = """
## Preparation

`make bench-prepare` writes its own images, and prepares them on two processes.

"""


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
