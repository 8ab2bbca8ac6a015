"""Job scripts for Slurm and manifests for Kubernetes, which the user submits.

Each node has one task with its own rank of `train.num_nodes`, and of `prepare.num_nodes`, which is
the same; the tasks meet at the first node. A sweep is an array with one member an index. A job that
is killed or runs out of time resumes where it was when it is started again.
"""

import math
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..config.validation import ParameterError
from ..files import ROOT, value_hash, write_atomic
from .paths import recipes

PORT = 29500
# the stages that the nodes of a job do together
SHARED_STAGES = ("prepare", "train")
# the checkout in the image that Kubernetes runs
HOME = "/onepass"


@dataclass(frozen=True)
class Job:
    """One or several commands for a cluster.

    name: the run's or sweep's
    folder: where the job's file is written
    recipe: file of the recipe
    members: options of each `onepass run`
    nodes: nodes of each member
    gpus: GPUs on each node, 0 for all
    max_parallel: members of a sweep that may run at the same time, 0 if the job is one run
    """

    name: str
    folder: Path
    recipe: Path
    members: list[list[str]]
    nodes: int
    gpus: int
    max_parallel: int = 0

    @property
    def is_array(self) -> bool:
        """True for a sweep."""
        return self.max_parallel > 0


def node_count(stages: dict[str, Any]) -> int:
    """Return the nodes that a run trains on, which prepare it as well.

    stages: the run's parameters
    Errors: ParameterError if it is to be prepared on several others
    """
    nodes = stages["train"].num_nodes
    requested = stages["prepare"].num_nodes
    if requested not in (1, nodes):
        raise ParameterError(
            f"given {requested}; allowed with --on is the number of train.num_nodes, {nodes}",
            "prepare.num_nodes",
        )
    return nodes


def write_job(kind: str, job: Job) -> tuple[Path, str]:
    """Write the job's file; return it and the command that submits it. Errors: ParameterError."""
    kinds = {
        "slurm": (slurm_script, "job.sh", "sbatch"),
        "k8s": (kubernetes_manifest, "job.yaml", "kubectl apply -f"),
    }
    if kind not in kinds:
        raise ParameterError(f"--on: given {kind!r}; allowed is one of {', '.join(kinds)}")
    render, name, submit = kinds[kind]
    path = job.folder / name
    write_atomic(path, render(job))
    return path, f"{submit} {shlex.quote(str(path))}"


def dns_name(name: str) -> str:
    """Return a DNS label for Kubernetes, short enough for the names it gives the pods."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    if plain == name:
        return f"onepass-{plain}"
    # letters were lost: without the hash, `a b` and `a_b` would be one job
    return f"onepass-{plain or 'run'}-{value_hash(name)[:6]}"


def slurm_script(job: Job) -> str:
    """Return a batch script. It finds the rendezvous on the nodes, which are not known before."""
    # sys.executable: the nodes have the same file system, and with it this environment
    command = [sys.executable, "-m", "nbs_lib", "run", str(_recipe_argument(job.recipe, ROOT))]
    log = job.folder / f"slurm-{'%A_%a' if job.is_array else '%j'}.log"
    name = dns_name(job.name)
    values = {"job": job, "name": name, "log": log, "root": ROOT, "command": command}
    return _render("job.sh.j2", shell_text, stages=SHARED_STAGES, **values)


def kubernetes_manifest(job: Job) -> str:
    """Return an indexed Job, whose indices are nodes or members of a sweep.

    With several nodes each member has a Job, and a Service by which its nodes meet.

    Errors: ParameterError for a recipe outside of the checkout, which no image of it holds.
    """
    if not job.recipe.resolve().is_relative_to(ROOT):
        allowed = f"one in {ROOT}, which an image has"
        raise ParameterError(
            f"recipe: given {str(job.recipe)!r}; allowed with --on k8s is {allowed}"
        )
    if job.nodes == 1:
        jobs = [(dns_name(job.name), _members_script(job))]
        completions = len(job.members)
    else:
        names = [dns_name(options[options.index("--name") + 1]) for options in job.members]
        pairs = zip(names, job.members, strict=True)
        jobs = [(name, _nodes_script(job, name, options)) for name, options in pairs]
        completions = job.nodes
    # nodes of one training have to run at the same time, whatever max_parallel is
    limit = job.max_parallel if job.nodes == 1 else 0
    return _render(
        "job.yaml.j2",
        yaml_text,
        job=job,
        jobs=[(name, escape_dollars(script)) for name, script in jobs],
        completions=completions,
        parallelism=min(completions, limit or completions),
        one_pod_a_member=job.nodes == 1 and job.is_array,
        home=HOME,
        port=PORT,
    )


def _members_script(job: Job) -> str:
    # the options are quoted for the shell here, and the script for YAML in the template
    cases = [
        f"{index}) set -- {shlex.join(options)} ;;" for index, options in enumerate(job.members)
    ]
    return f'case "$JOB_COMPLETION_INDEX" in {" ".join(cases)} esac; exec {_pod_command(job)} "$@"'


def _nodes_script(job: Job, name: str, options: list[str]) -> str:
    # the first pod's name in the Service of its job
    rendezvous = [
        f'-p {stage}.num_nodes={job.nodes} -p {stage}.node_rank="$JOB_COMPLETION_INDEX" '
        f"-p {stage}.master_addr={name}-0.{name} -p {stage}.master_port={PORT}"
        for stage in SHARED_STAGES
    ]
    return f"exec {_pod_command(job)} {shlex.join(options)} {' '.join(rendezvous)}"


def _pod_command(job: Job) -> str:
    recipe = str(_recipe_argument(job.recipe, Path(HOME)))
    return shlex.join(["python", "-m", "nbs_lib", "run", recipe])


def _recipe_argument(recipe: Path, home: Path) -> Path | str:
    """Return a recipe's name, or its path below `home`, where the job finds the checkout."""
    path = recipe.resolve()
    if path.parent == recipes().resolve():
        return path.stem
    return path if home == ROOT else home / path.relative_to(ROOT)


def escape_dollars(text: str) -> str:
    """Return the text that Kubernetes expands to `text`.

    It reads $$ as $, and $(NAME) as a variable of the container.
    Source: Kubernetes API reference, v1.Container, `command`.
    """
    # all of them: a $ that begins no $(NAME) may stand before another $
    return text.replace("$", "$$")


def shell_text(value: Any) -> str:
    """Return a value as words of a shell, quoted."""
    return shlex.join(value) if isinstance(value, list) else shlex.quote(str(value))


def yaml_text(value: Any) -> str:
    """Return a number, or a text in double quotes, as one line of YAML."""
    if isinstance(value, int):
        return str(value)
    # double quotes escape newlines, and one endless line needs no indentation
    return yaml.safe_dump(value, default_style='"', width=math.inf).strip()


def _render(template: str, quote: Callable[[Any], str], **values: Any) -> str:
    """Return a template of this folder with every value quoted, except those marked `safe`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        # neither file is HTML, so autoescape would be the wrong quotes: `finalize` quotes instead
        autoescape=False,
        finalize=lambda value: value if isinstance(value, Markup) else quote(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
