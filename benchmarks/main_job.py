"""The main job, as a user runs it: `onepass run RECIPE` from nothing, timed; what it came to, written down.

    python benchmarks/main_job.py demo demo-long     # or: make bench

For each recipe, a fresh run outputs/bench-RECIPE; its figures go to benchmarks/results/RECIPE.json, and the table of all
results to benchmarks/README.md. Times are wall clock on the machine that the result names.
"""

import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from nbs_lib.picturebook.book import draw_book

HERE = Path(__file__).resolve().parent
ROOT, RESULTS = HERE.parent, HERE / "results"
HEAD = """# Benchmarks

What is measured, with the last results. Every figure is written by the command above its table; ratios are of two sides
measured in turns in one process.

## The main job

`make bench` runs each recipe from nothing, as `onepass run` does, and measures its pictures.

*Caption first*: of the held-out captions, how often the picture's CLIP score puts its caption before fifteen near misses
with one attribute changed. *Guidance recovered*: (tuned − unguided) / (guided − unguided) of those rates. In brackets, 95 %
bootstrap intervals over the captions.

"""


def measure(recipe: str) -> dict:
    """Run a recipe from nothing; its figures."""
    name = f"bench-{recipe}"
    run = ROOT / "outputs" / name
    shutil.rmtree(run, ignore_errors=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "nbs_lib", "run", recipe, "--name", name], cwd=ROOT, check=True)
    seconds = time.perf_counter() - start
    record, results = (json.loads((run / file).read_text()) for file in ("run.json", "compare/results.json"))
    stages = record["stages"]
    kept = ("w_train", "steps", "scheduler", "contenders", "guidance_recovered", "to_guided", "time_ratio", "nfe_ratio")
    return {
        "recipe": recipe,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": record["machine"],
        "versions": record["versions"],
        "commit": record["commit"],
        "seconds": round(seconds, 1),
        "scenes_per_second": round(scenes_per_second()),
        "stages": {stage: told["seconds"] for stage, told in stages.items()},
        "train": {**stages["train"]["parameters"], "run": name, "processes": stages["train"]["processes"]},
        "cache_reused": stages["prepare"]["reused"],
        "captions": stages["compare"]["parameters"]["captions"],
        **{key: results[key] for key in kept},
    }


def scenes_per_second(count: int = 1000, repetitions: int = 5) -> float:
    """How fast the picture-book is drawn; the median of some repetitions."""
    seconds = []
    for seed in range(repetitions):
        start = time.perf_counter()
        draw_book(count, seed)
        seconds.append(time.perf_counter() - start)
    return count / median(seconds)


def table(results: list[dict]) -> str:
    """The results as a Markdown table, a row for each recipe."""
    lines = [
        "| recipe | training | run | unguided | guided | tuned | guidance recovered | tuned : guided time | NFE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        rates = [percent(each["contenders"][name]["caption_first"]) for name in ("unguided", "guided", "tuned")]
        train, contenders = each["train"], each["contenders"]
        cells = [
            f"`{each['recipe']}`",
            f"{train['steps']} steps, w = {each['w_train']:g}, rank {train['rank']}, {minutes(each['stages']['train'])}",
            minutes(each["seconds"]),
            *rates,
            percent(each["guidance_recovered"], "value"),
            f"{contenders['tuned']['seconds']:.3f} : {contenders['guided']['seconds']:.3f} s = {each['time_ratio']:.2f}",
            f"{contenders['tuned']['nfe']:g} : {contenders['guided']['nfe']:g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for each in results:
        machine = each["machine"]
        gpus = ", ".join(machine["gpus"]) or "no GPU"
        lines.append(
            f"`{each['recipe']}`: {each['captions']} captions; {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB, {gpus}; torch {each['versions']['torch']}; {each['date']}. "
            f"The picture-book drew {each['scenes_per_second']:,} scenes a second.\n"
        )
    return "\n".join(lines)


def percent(told: dict, key: str = "rate") -> str:
    return f"{100 * told[key]:.0f} % [{100 * told['low']:.0f}, {100 * told['high']:.0f}]"


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def main(recipes: list[str]):
    RESULTS.mkdir(exist_ok=True)
    for recipe in recipes:
        (RESULTS / f"{recipe}.json").write_text(json.dumps(measure(recipe), indent=1, ensure_ascii=False) + "\n")
        results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
        (HERE / "README.md").write_text(HEAD + table(results))


if __name__ == "__main__":
    main(sys.argv[1:] or ["demo", "demo-long"])
