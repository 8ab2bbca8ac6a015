"""Recipes and command-line parameters, read into the checked configs of the three notebooks.

A recipe is a YAML file with a mapping of parameters for `prepare`, `train` and `compare`; a
parameter it leaves out keeps its default.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ..config import PLACE, STAGES
from ..config.validation import ParameterError, from_parameters, value_type
from ..config.yaml12 import load
from .paths import did_you_mean, recipes

# parameters that differ from a recipe: {"train.steps": 500} or ["train.steps=500"]
Overrides = Mapping[str, Any] | Iterable[str]


def read_yaml(text: str, source: str) -> Any:
    """Parse a YAML value. source: where the text stands, for the error. Errors: ParameterError."""
    try:
        return load(text)
    except yaml.MarkedYAMLError as failure:
        line = f", line {failure.problem_mark.line + 1}" if failure.problem_mark else ""
        problem = f"{line}: {failure.problem}"
    except (yaml.YAMLError, ValueError, RecursionError) as failure:
        # ValueError: Python refuses a number of more than 4,300 digits
        problem = f": {' '.join(str(failure).split())}"
    raise ParameterError(f"{source}: it is not good YAML{problem}")


def recipe_names() -> list[str]:
    """Return the sorted names of the recipes in notebooks/recipes."""
    return sorted(path.stem for path in recipes().glob("*.yaml"))


def find_recipe(recipe: str) -> Path:
    """Return the file of a recipe, named as in notebooks/recipes or by a path.

    Errors: ParameterError.
    """
    for path in (recipes() / f"{recipe}.yaml", Path(recipe)):
        if path.is_file():
            return path
    names = recipe_names()
    allowed = f"one of {', '.join(names)}, or the path of a YAML file"
    hint = did_you_mean(recipe, names)
    raise ParameterError(f"recipe: given {recipe!r}; allowed is {allowed}{hint}")


def recipe_description(path: Path) -> str:
    """Return the comment at the head of a recipe as one line."""
    # replace: a listing of all recipes must not fail because of one
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    head = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ") for line in head)


def read_recipe(path: Path) -> dict[str, dict]:
    """Return the parameters of each stage. Errors: ParameterError for any other content."""
    source = f"recipe {path}"
    try:
        recipe = read_yaml(path.read_text(encoding="utf-8"), source)
    except (OSError, UnicodeDecodeError) as failure:
        raise ParameterError(f"{source}: it cannot be read as text: {failure}") from failure
    # a list, a text or an empty file is YAML too
    expected = f"{source}: it must be a mapping with {', '.join(STAGES)}"
    if not isinstance(recipe, dict):
        raise ParameterError(expected)
    for name, parameters in recipe.items():
        if name not in STAGES:
            hint = did_you_mean(str(name), STAGES)
            raise ParameterError(f"{expected}; given {str(name)!r}{hint}")
        if not isinstance(parameters, dict | None):
            raise ParameterError(f"{source}: {name} must be a mapping of parameters")
    # a stage without parameters is None in YAML
    return {stage: dict(recipe.get(stage) or {}) for stage in STAGES}


def split_override(override: str) -> tuple[str, str, str]:
    """Split `STAGE.NAME=VALUE` into stage, name and value. Errors: ParameterError."""
    match = re.fullmatch(r"\s*(\w+)\.(\w+)=(.*)", override, re.DOTALL)
    if match and match[1] in STAGES:
        return match.groups()
    hint = did_you_mean(match[1], STAGES) if match else ""
    allowed = f"STAGE.NAME=VALUE with STAGE one of {', '.join(STAGES)}"
    raise ParameterError(f"-p {override}: allowed is {allowed}{hint}")


def is_text(stage: str, name: str) -> bool:
    """Return True if a parameter is text, whose command-line value is not parsed as YAML."""
    matches = [field for field in fields(STAGES[stage]) if field.name == name]
    return bool(matches) and value_type(matches[0].type) is str


def apply_overrides(overrides: Overrides) -> dict[str, dict]:
    """Return the overriding parameters by stage. Errors: ParameterError.

    The text of an override is the value itself if the parameter is text, and YAML otherwise.
    """
    parameters = {stage: {} for stage in STAGES}
    if isinstance(overrides, Mapping):
        for full_name, value in overrides.items():
            stage, name, _ = split_override(f"{full_name}=")
            parameters[stage][name] = value
        return parameters
    for override in overrides:
        stage, name, value = split_override(override)
        # an empty value is no YAML null, but the empty text
        if value and not is_text(stage, name):
            value = read_yaml(value, f"-p {override}")
        parameters[stage][name] = value
    return parameters


def apply_seed(parameters: dict[str, dict], seed: int):
    """Set every seed: the data's, the training's, and the pictures', which count up from it."""
    parameters["prepare"]["seed"] = seed
    parameters["train"]["seed"] = seed
    seeds = parameters["compare"].get("seeds")
    # a wrong value is reported by the check of the config
    count = len(seeds) if isinstance(seeds, list) else 1
    parameters["compare"]["seeds"] = list(range(seed, seed + count))


def configs(
    recipe: str,
    folder: Path,
    overrides: Overrides = (),
    seed: int | None = None,
) -> dict:
    """Return the checked config of each stage. Errors: ParameterError."""
    parameters = read_recipe(find_recipe(recipe))
    for stage, changes in apply_overrides(overrides).items():
        # compare.seeds may stand beside --seed: it says how many pictures there are
        if seed is not None and stage != "compare" and "seed" in changes:
            raise ParameterError(
                f"--seed: given with {stage}.seed, which it sets as well; give one of the two"
            )
        parameters[stage] |= changes
    if seed is not None:
        apply_seed(parameters, seed)
    return check_configs(parameters, folder)


def check_configs(parameters: dict[str, dict], folder: Path) -> dict:
    """Return the config of each stage for the run in `folder`. Errors: ParameterError."""
    for stage, values in parameters.items():
        # otherwise a run could write into the folder of another
        if "run" in values:
            raise ParameterError(f"{stage}.run: it is set by the run's name; use --name")
    # the prefix: the error names the parameter, and two stages may have one of that name
    return {
        stage: from_parameters(cls, parameters[stage] | {"run": str(folder)}, f"{stage}.")
        for stage, cls in STAGES.items()
    }


def result_parameters(parameters: dict) -> dict:
    """Return the parameters that decide a stage's result, not where and how it is executed."""
    return {name: value for name, value in parameters.items() if name not in PLACE}
