"""benchmarks/README.md: the last results as tables, with their commands and machines."""

import json
from pathlib import Path

from tables import MAIN_JOB, SECTIONS, table

from nbs_lib.files import write_atomic

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
HEAD = """# Benchmarks

The measurements and their last results. Every figure is written by the command above its table, on
the machine named below it.
"""


def save(name: str, told: dict):
    """Write a result, and rewrite the page."""
    write_atomic(RESULTS / f"{name}.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    recipes = [each for each in results.values() if "recipe" in each]
    text = HEAD + (MAIN_JOB + table(recipes) if recipes else "")
    text += "".join(
        said + shown(results[which])
        for which, (said, shown) in SECTIONS.items()
        if which in results
    )
    write_atomic(HERE / "README.md", text)
