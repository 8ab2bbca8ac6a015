"""A recipe and the command line -> the checked parameters of the three notebooks.

A recipe is a YAML file with a mapping of parameters for each of `prepare`, `train` and `compare`; what it leaves out
keeps its default.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ..config import STAGES
from ..config.validation import ParameterError, from_parameters, value_type
from ..config.yaml12 import load
from .paths import did_you_mean, recipes

Given = Mapping[str, Any] | Iterable[str]
"""Parameters that differ from a recipe: {"train.steps": 500}, or ["train.steps=500"] as on the command line."""


def read_yaml(text: str, where: str) -> Any:
    """A YAML value. Errors: ParameterError, which says `where` it stands and what is wrong with it."""
    try:
        return load(text)
    except yaml.MarkedYAMLError as failure:
        line = f", line {failure.problem_mark.line + 1}" if failure.problem_mark else ""
        raise ParameterError(f"{where}: it is not good YAML{line}: {failure.problem}") from failure
    except (yaml.YAMLError, ValueError, RecursionError) as failure:  # ValueError: a number too long
        raise ParameterError(
            f"{where}: it is not good YAML: {' '.join(str(failure).split())}"
        ) from failure


def recipe_names() -> list[str]:
    return sorted(path.stem for path in recipes().glob("*.yaml"))


def find_recipe(recipe: str) -> Path:
    """A recipe by its name in notebooks/recipes, or by a path. Errors: ParameterError."""
    for path in (recipes() / f"{recipe}.yaml", Path(recipe)):
        if path.is_file():
            return path
    known = recipe_names()
    hint = did_you_mean(recipe, known)
    raise ParameterError(
        f"recipe: given {recipe!r}; allowed is one of {', '.join(known)}, or the path of a YAML file{hint}"
    )


def recipe_description(path: Path) -> str:
    """What a recipe says of itself: the comment at its head, as one line."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    head = next(
        (number for number, line in enumerate(lines) if not line.startswith("#")), len(lines)
    )
    return " ".join(line.lstrip("# ") for line in lines[:head])


def read_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """The parameters of each stage. Errors: ParameterError for a file that is not such a mapping."""
    try:
        recipe = read_yaml(path.read_text(encoding="utf-8"), f"recipe {path}")
    except (OSError, UnicodeDecodeError) as failure:
        raise ParameterError(
            f"recipe {path}: it is no text that can be read: {failure}"
        ) from failure
    if not isinstance(recipe, dict):
        raise ParameterError(f"recipe {path}: it is to be a mapping with {', '.join(STAGES)}")
    if other := [str(name) for name in recipe if name not in STAGES]:
        hint = did_you_mean(other[0], list(STAGES))
        raise ParameterError(
            f"recipe {path}: it is to be a mapping with {', '.join(STAGES)}; given {other[0]!r}{hint}"
        )
    if wrong := [stage for stage, given in recipe.items() if not isinstance(given, dict | None)]:
        raise ParameterError(f"recipe {path}: {wrong[0]} is to be a mapping of parameters")
    return {stage: dict(recipe.get(stage) or {}) for stage in STAGES}


def split_override(override: str) -> tuple[str, str, str]:
    """Stage, name and value of `STAGE.NAME=VALUE`. Errors: ParameterError."""
    match = re.fullmatch(r"\s*(\w+)\.(\w+)=(.*)", override, re.DOTALL)
    if match and match[1] in STAGES:
        return match.groups()
    hint = did_you_mean(match[1], list(STAGES)) if match else ""
    raise ParameterError(
        f"-p {override}: allowed is STAGE.NAME=VALUE with STAGE one of {', '.join(STAGES)}{hint}"
    )


def is_text(stage: str, name: str) -> bool:
    """Whether a parameter is text, whose value on the command line is taken as it stands."""
    return any(
        field.name == name and value_type(field.type) is str for field in fields(STAGES[stage])
    )


def apply_overrides(given: Given) -> dict[str, dict[str, Any]]:
    """The given parameters by stage; the value of one that is text as it stands, of any other as YAML."""
    found: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    if isinstance(given, Mapping):
        for full, value in given.items():
            stage, name, _ = split_override(f"{full}=")
            found[stage][name] = value
        return found
    for override in given:
        stage, name, value = split_override(override)
        found[stage][name] = (
            value if is_text(stage, name) or not value else read_yaml(value, f"-p {override}")
        )
    return found


def apply_seed(parameters: dict[str, dict[str, Any]], seed: int):
    """Set every seed: of the data, of the training, and of the pictures, which count on from it."""
    parameters["prepare"]["seed"] = parameters["train"]["seed"] = seed
    pictures = parameters["compare"].get("seeds")
    count = len(pictures) if isinstance(pictures, list) else 1
    parameters["compare"]["seeds"] = [seed + each for each in range(count)]


def configs(
    recipe: str, folder: Path, given: Given = (), seed: int | None = None
) -> dict[str, Any]:
    """The checked config of each stage. Errors: ParameterError."""
    parameters, changed = read_recipe(find_recipe(recipe)), apply_overrides(given)
    if seed is not None and (
        twice := [f"{stage}.seed" for stage in ("prepare", "train") if "seed" in changed[stage]]
    ):
        raise ParameterError(
            f"--seed: given with {twice[0]}, which it sets as well; give one of the two"
        )
    for stage, own in parameters.items():
        own |= changed[stage]
    if seed is not None:
        apply_seed(parameters, seed)
    return check_configs(parameters, folder)


def check_configs(parameters: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The config of each stage, for the run in that folder. Errors: ParameterError."""
    for stage, given in parameters.items():
        if "run" in given:
            raise ParameterError(f"{stage}.run: it is set by the run's name; use --name")
    made = {}
    for stage, cls in STAGES.items():
        try:
            made[stage] = from_parameters(cls, parameters[stage] | {"run": str(folder)})
        except (
            ParameterError
        ) as wrong:  # which names the parameter; two stages may have one of that name
            raise ParameterError(
                str(wrong).replace("parameter ", f"parameter {stage}.", 1)
            ) from None
    return made
