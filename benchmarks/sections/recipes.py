"""The main job: each recipe run from nothing."""

from .figures import machine_line, minutes, percent

MAIN_JOB = """
## The main job

`make bench` runs each recipe from nothing, as `onepass run` does, and measures its pictures.

*Caption first*: the share of held-out captions whose picture's CLIP score puts the caption before
fifteen near misses with one attribute changed. *Guidance recovered*: (tuned − unguided) / (guided −
unguided) of those rates. In brackets, 95 % bootstrap intervals over the captions.

"""


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
        f"{machine_line(result, of_pictures=True)}"
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
