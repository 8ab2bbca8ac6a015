"""The page of all recipes: their parameters, and what each came to."""

from pathlib import Path

from ..config import STAGES
from ..config.stage import defaults
from ..config.tables import literal
from ..pipeline.recipes import find_recipe, read_recipe, recipe_description, recipe_names
from .markdown import inline, prose, table
from .results import outcome

HEAD = """# The recipes

The YAML files of `notebooks/recipes/`, each with the parameters that it sets and what it came to,
written by `python -m nbs_lib.reference` from the recipes and `benchmarks/results/`. `onepass run
NAME` executes one; `-p train.steps=500` changes a parameter. Any other [parameter](parameters.md)
has its default.

*Right caption first*: of the held-out captions, how often the picture's CLIP score puts its
caption before fifteen near misses, with the 95 % interval. *NFE*: denoiser evaluations for a
picture. More columns: [benchmarks](../../benchmarks/README.md).
"""
UNMEASURED = "No result of it is in `benchmarks/results/`."


def page() -> str:
    """Return the page, a section for each recipe."""
    parts = [HEAD.rstrip()]
    for name in recipe_names():
        path = find_recipe(name)
        parts.append(f"## {name}\n\n{prose(inline(recipe_description(path)))}")
        parts.append(table(["parameter", "value", "default"], _rows(path)))
        # said, or a reader would take silence for "not worth it"
        parts.append(outcome(name) or UNMEASURED)
    return "\n\n".join(parts) + "\n"


def _rows(path: Path) -> list[list[str]]:
    rows = []
    for stage, values in read_recipe(path).items():
        usual = defaults(STAGES[stage])
        for parameter, value in values.items():
            default = f"`{literal(usual[parameter])}`"
            # a recipe may set a default, so that it stays if the default changes
            if value == usual[parameter]:
                default = "the same"
            rows.append([f"`{stage}.{parameter}`", f"`{literal(value)}`", default])
    return rows
