"""The comparison lab."""

from .figures import machine_line, percent

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
    return "\n".join([*lines, f"\n{machine_line(result, of_pictures=True)}\n"])
