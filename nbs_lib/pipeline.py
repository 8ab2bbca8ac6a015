"""A recipe, the three notebooks through papermill, a run.

A recipe is a YAML file with a mapping of parameters for each of `prepare`, `train` and `compare`; what it leaves out
keeps its default.
"""

import json
import re
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from .config import DRAWN, STAGES
from .files import ROOT
from .parameters import ParameterError, as_parameters, from_parameters
from .run import NOTEBOOKS, Run

RECIPES = NOTEBOOKS / "recipes"
CELL_TIMEOUT = 24 * 3600  # seconds; no headless run waits for ever
SHIPPED = {"source": DRAWN, "prior": ("", *DRAWN), "base": ("embedded",)}
"""What a run's inputs cover; any other source or base may have changed without a word."""


class StageError(RuntimeError):
    """A stage's notebook did not come to its end; its executed notebook shows where. code: the command's exit status."""

    def __init__(self, said: str, code: int = 1):
        super().__init__(said)
        self.code = code


class Loader(yaml.SafeLoader):
    """YAML without keys that stand twice, of which its own loader takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice in one mapping", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> Any:
    """A YAML value. Errors: ParameterError, which says `where` it stands and what is wrong with it."""
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as failure:
        line = f", line {failure.problem_mark.line + 1}" if failure.problem_mark else ""
        raise ParameterError(f"{where}: it is not good YAML{line}: {failure.problem}") from failure
    except (yaml.YAMLError, ValueError, RecursionError) as failure:  # ValueError: a date of month 13, a number too long
        raise ParameterError(f"{where}: it is not good YAML: {' '.join(str(failure).split())}") from failure


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
        recipe = read_yaml(path.read_text(encoding="utf-8"), f"recipe {path}")
    except (OSError, UnicodeDecodeError) as failure:
        raise ParameterError(f"recipe {path}: it is no text that can be read: {failure}") from failure
    if not isinstance(recipe, dict) or not set(recipe) <= set(STAGES):
        raise ParameterError(f"recipe {path}: it is to be a mapping with {', '.join(STAGES)}")
    if wrong := [stage for stage, given in recipe.items() if not isinstance(given, dict | None)]:
        raise ParameterError(f"recipe {path}: {wrong[0]} is to be a mapping of parameters")
    return {stage: dict(recipe.get(stage) or {}) for stage in STAGES}


def configs(recipe: str, folder: Path, overrides: list[str] = ()) -> dict[str, Any]:
    """The checked config of each stage. Errors: ParameterError.

    overrides: `STAGE.NAME=VALUE`; the value of a parameter that is text as it stands, of any other as YAML.
    """
    parameters = read_recipe(find_recipe(recipe))
    for override in overrides:
        match = re.fullmatch(r"(\w+)\.(\w+)=(.*)", override, re.DOTALL)
        if not match or match[1] not in STAGES:
            raise ParameterError(f"-p {override}: allowed is STAGE.NAME=VALUE with STAGE one of {', '.join(STAGES)}")
        stage, name, value = match.groups()
        text = any(field.name == name and field.type is str for field in fields(STAGES[stage]))
        parameters[stage][name] = value if text or not value else read_yaml(value, f"-p {override}")
    for stage, given in parameters.items():
        if "run" in given:
            raise ParameterError(f"{stage}.run: it is set by the run's name; use --name")
    return {stage: from_parameters(cls, parameters[stage] | {"run": str(folder)}) for stage, cls in STAGES.items()}


def run_folder(name: str) -> Path:
    """outputs/NAME. Errors: ParameterError for a name that is no plain folder name."""
    if not re.fullmatch(r"\w[\w .-]*", name) or name in ("cache", "base"):
        raise ParameterError(f"--name: given {name!r}; allowed are letters, digits, '_', '-', '.', spaces")
    return ROOT / "outputs" / name


def run_recipe(recipe: str, name: str | None = None, overrides: list[str] = (), say=print) -> Run | None:
    """Run the notebooks whose inputs changed since they were last done; the finished run. On another host than the first,
    its part of the training, which waits for the first host; None.

    Everything is checked before anything is written. Errors: ParameterError; StageError; RunError where another process
    works on the same run, or its record is damaged.
    """
    folder = run_folder(name or find_recipe(recipe).stem)
    stages, run = configs(recipe, folder, overrides), Run(folder)
    if host := stages["train"].node_rank:
        say(f"host {host}: trains with host 0, which prepares and compares")
        execute(run, "train", stages["train"])
        return None
    with run.alone(".recipe.lock"):  # each stage's own lock is held by its kernel
        for number, (stage, config) in enumerate(stages.items(), 1):
            reasons = run.changed(config)
            if stage == "prepare" and not reasons:
                other = [name for name, ours in SHIPPED.items() if getattr(config, name) not in ours]
                reasons = [f"its {name} is looked at again" for name in other]
            if not reasons:
                say(f"[{number}/3] {stage}: unchanged, kept")
                continue
            say(f"[{number}/3] {stage}: {', '.join(reasons)}")
            execute(run, stage, config)
            say(f"      {run.stage_record(stage)['seconds']} s")
    return run


def execute(run: Run, stage: str, config: Any):
    """One notebook through papermill. Errors: StageError, with the notebook kept; RunError where another process works on
    the run."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    page = notebook = run.notebook(stage)
    if host := getattr(config, "node_rank", 0):
        run.folder.mkdir(parents=True, exist_ok=True)
        notebook = page.with_stem(f"{page.stem}-host{host}")
    else:
        with run.alone():
            pass  # refused here, before the notebook of the stage that is at work is written over
    try:
        papermill.execute_notebook(
            NOTEBOOKS / page.name,
            notebook,
            parameters=as_parameters(config),
            kernel_name="python3",
            cwd=NOTEBOOKS,
            execution_timeout=CELL_TIMEOUT,
            progress_bar=False,
            coalesce_streams=True,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # what a kernel logs, the terminal need not see
        )
    except PapermillExecutionError as failure:
        raise StageError(f"{stage} failed: {failure.ename}: {failure.evalue}\n{notebook} shows where") from failure
    except KeyboardInterrupt:
        _settle(run, stage, "interrupted")
        said = f"{stage} was interrupted; the same command goes on from there\n{notebook} shows where"
        raise StageError(said, code=130) from None
    except Exception as failure:  # the kernel died, a cell took too long, the disk is full
        said = f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}"
        _settle(run, stage, "failed", error=said)
        raise StageError(f"{stage} failed: {said}\n{notebook} shows where") from failure


def _settle(run: Run, stage: str, status: str, **told: str):
    with suppress(OSError):  # a full disk is no reason to hide what happened
        run.settle(stage, status, **told)


def headline(run: Run) -> str:
    """What a finished run came to, in a few lines."""
    from .compare import Compared, summary

    return summary(Compared(run.compare, json.loads((run.compare / "results.json").read_text()), run.report))
