"""benchmarks/README.md: the last results as tables, with their commands and machines."""

import json
from pathlib import Path

from sections import SECTIONS
from sections.recipes import MAIN_JOB, recipes_table

from nbs_lib.files import write_atomic

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
HEAD = """# Benchmarks

The measurements and their last results. Every figure is written by the command above its table, on
the machine named below it.
"""


def save(name: str, result: dict):
    """Write a result, and rewrite the page."""
    write_atomic(RESULTS / f"{name}.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    recipes = [other for other in results.values() if "recipe" in other]
    text = HEAD + (MAIN_JOB + recipes_table(recipes) if recipes else "")
    text += "".join(
        heading + render(results[section])
        for section, (heading, render) in SECTIONS.items()
        if section in results
    )
    write_atomic(HERE / "README.md", text)
