"""A recipe, the three notebooks through papermill, a run.

A recipe is a YAML file with a mapping of parameters for each of `prepare`, `train` and `compare`; what it leaves out
keeps its default.
"""

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .config import STAGES, ParameterError, as_parameters, from_parameters
from .run import ROOT, Run

NOTEBOOKS = ROOT / "notebooks"
RECIPES = NOTEBOOKS / "recipes"
CELL_TIMEOUT = 24 * 3600  # seconds; no headless run waits for ever


class StageError(RuntimeError):
    """A stage's notebook ended with an error; its executed notebook shows where."""


def find_recipe(recipe: str) -> Path:
    """A recipe by its name in notebooks/recipes, or by a path. Errors: ParameterError."""
    for path in (RECIPES / f"{recipe}.yaml", Path(recipe)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise ParameterError(f"recipe: given {recipe!r}; allowed is one of {known}, or the path of a YAML file")


def read_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """The parameters of each stage. Errors: ParameterError for a file that is not such a mapping."""
    try:
        recipe = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as failure:
        raise ParameterError(f"recipe {path}: it is not YAML: {' '.join(str(failure).split())}") from failure
    if not isinstance(recipe, dict) or not set(recipe) <= set(STAGES):
        raise ParameterError(f"recipe {path}: it is to be a mapping with {', '.join(STAGES)}")
    if wrong := [stage for stage, given in recipe.items() if not isinstance(given, dict | None)]:
        raise ParameterError(f"recipe {path}: {wrong[0]} is to be a mapping of parameters")
    return {stage: dict(recipe.get(stage) or {}) for stage in STAGES}


def configs(recipe: str, folder: Path, overrides: list[str] = ()) -> dict[str, Any]:
    """The checked config of each stage. overrides: `STAGE.NAME=VALUE`, the value as YAML. Errors: ParameterError."""
    parameters = read_recipe(find_recipe(recipe))
    for override in overrides:
        match = re.fullmatch(r"(\w+)\.(\w+)=(.*)", override, re.DOTALL)
        if not match or match[1] not in STAGES:
            raise ParameterError(f"-p {override}: allowed is STAGE.NAME=VALUE with STAGE one of {', '.join(STAGES)}")
        parameters[match[1]][match[2]] = yaml.safe_load(match[3]) if match[3] else ""
    for stage, given in parameters.items():
        if "run" in given:
            raise ParameterError(f"{stage}.run: it is set by the run's name; use --name")
    return {stage: from_parameters(cls, parameters[stage] | {"run": str(folder)}) for stage, cls in STAGES.items()}


def run_folder(name: str) -> Path:
    """outputs/NAME. Errors: ParameterError for a name that is no plain folder name."""
    if not re.fullmatch(r"\w[\w .-]*", name) or name in ("cache", "base"):
        raise ParameterError(f"--name: given {name!r}; allowed are letters, digits, '_', '-', '.', spaces")
    return ROOT / "outputs" / name


def run_recipe(recipe: str, name: str | None = None, overrides: list[str] = (), say=print) -> Run:
    """Run the notebooks whose inputs changed since they were last done; the finished run.

    Everything is checked before anything is written. Errors: ParameterError; StageError; RuntimeError where another
    process works on the same run.
    """
    folder = run_folder(name or find_recipe(recipe).stem)
    stages, run = configs(recipe, folder, overrides), Run(folder)
    with locked(run):
        for number, (stage, config) in enumerate(stages.items(), 1):
            reasons = run.changed(config)
            if stage == "prepare" and config.source != "picturebook":
                reasons = reasons or ["its folder is looked at again"]
            if not reasons:
                say(f"[{number}/3] {stage}: unchanged, kept")
                continue
            say(f"[{number}/3] {stage}: {', '.join(reasons)}")
            execute(run, stage, config)
            say(f"      {run.stage_record(stage)['seconds']} s")
    return run


def execute(run: Run, stage: str, config: Any):
    """One notebook through papermill. Errors: StageError, with the notebook kept."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    notebook = run.notebook(stage)
    notebook.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            NOTEBOOKS / notebook.name,
            notebook,
            parameters=as_parameters(config),
            kernel_name="python3",
            cwd=NOTEBOOKS,
            execution_timeout=CELL_TIMEOUT,
            progress_bar=False,
            coalesce_streams=True,
        )
    except PapermillExecutionError as failure:
        raise StageError(f"{stage} failed: {failure.ename}: {failure.evalue}\n{notebook} shows where") from failure


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep a second command off the run; the lock goes with the process that holds it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"{run.folder} is being worked on by another onepass; wait for it, or use --name") from None
        yield


def headline(run: Run) -> str:
    """What a finished run came to, in a few lines."""
    from .compare import Compared, summary

    return summary(Compared(run.compare, json.loads((run.compare / "results.json").read_text()), run.report))
