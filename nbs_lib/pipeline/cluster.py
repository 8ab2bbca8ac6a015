"""Job scripts for Slurm and manifests for Kubernetes, to be submitted by whoever may.

One task a node, each with its own rank of `train.num_nodes`; they meet at the first of them. A sweep is an array: one member
an index. What is killed or runs out of time goes on from its newest checkpoint when it is started again.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..config.validation import ParameterError
from ..files import ROOT, value_hash, write_atomic
from .paths import recipes

KINDS = {"slurm": ("job.sh", "sbatch"), "k8s": ("job.yaml", "kubectl apply -f")}
"""Of each kind the file that is written, and the command that submits it."""
PORT = 29500
HOME, IMAGE, CLAIM = "/onepass", "onepass:latest", "onepass-outputs"
"""In a cluster of Kubernetes: the checkout in the image, the image, and the claim of the volume that all pods share."""
GRACE = 120
"""Seconds from being asked to end until a pod is killed, as with Slurm: a training may take 50 to end its step and save."""


@dataclass(frozen=True)
class Job:
    """What is to be run. name: of the run or sweep; members: the options of each `onepass run`; nodes: that each needs;
    gpus: on each node, 0 for all; at_once: members of a sweep that may run at a time."""

    name: str
    folder: Path
    recipe: Path
    members: list[list[str]]
    nodes: int
    gpus: int
    at_once: int = 0

    @property
    def array(self) -> bool:
        return self.at_once > 0


def write_job(kind: str, job: Job) -> tuple[Path, str]:
    """Write the file; it and the command that submits it. Errors: ParameterError."""
    if kind not in KINDS:
        raise ParameterError(f"--on: given {kind!r}; allowed is one of {', '.join(KINDS)}")
    file, submit = KINDS[kind]
    path = job.folder / file
    write_atomic(path, {"slurm": slurm, "k8s": kubernetes}[kind](job))
    return path, f"{submit} {shlex.quote(str(path))}"


def dns_name(name: str) -> str:
    """A name as Kubernetes takes it: a DNS label, short enough for the pods' own names; a hash tells changed ones apart."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return (
        f"onepass-{plain}" if plain == name else f"onepass-{plain or 'run'}-{value_hash(name)[:6]}"
    )


def slurm(job: Job) -> str:
    """A batch script. The rendezvous is worked out on the nodes, which are not known before."""
    log = str(job.folder / f"slurm-{'%A_%a' if job.array else '%j'}.log")
    head = {
        "job-name": dns_name(job.name),
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        **({"gpus-per-node": job.gpus} if job.gpus else {"exclusive": None}),
        **({"array": f"0-{len(job.members) - 1}%{job.at_once}"} if job.array else {}),
        "output": f'"{log}"' if " " in log else log,
        "open-mode": "append",
        "signal": "TERM@120",
    }
    options = [
        f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={value}"
        for name, value in head.items()
    ]
    command = shlex.join([sys.executable, "-m", "nbs_lib", "run", str(_recipe(job.recipe, ROOT))])
    own = 'exec "$@"'
    if job.nodes > 1:
        own += (
            ' -p train.num_nodes="$SLURM_NNODES" -p train.node_rank="$SLURM_NODEID"'
            ' -p train.master_addr="$MASTER_ADDR" -p train.master_port="$MASTER_PORT"'
        )
    return "\n".join([
        "#!/bin/bash",
        *options,
        "# What else the cluster asks for, such as --partition, --account, --time and --mem, goes here or to sbatch itself.",
        "# SIGTERM comes two minutes before the end of the time: the training saves, and goes on when it is submitted again.",
        "set -euo pipefail",
        f"cd {shlex.quote(str(ROOT))}",
        'read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        "MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))  # two jobs on a node do not meet",
        "export MASTER_ADDR MASTER_PORT",
        *_cases(job, "SLURM_ARRAY_TASK_ID"),
        "# shellcheck disable=SC2016  # what stands in single quotes is for the tasks",
        f"srun --kill-on-bad-exit=1 bash -c {shlex.quote(own)} onepass {command} \"${{given[@]}}\"",
        "",
    ])  # fmt: skip


def _cases(job: Job, index: str) -> list[str]:
    """Lines of bash that set `given` to the options of this member."""
    if not job.array:
        return [f"given=({shlex.join(job.members[0])})"]
    cases = [
        f"    {place}) given=({shlex.join(options)}) ;;"
        for place, options in enumerate(job.members)
    ]
    return [
        f'case "${index}" in',
        *cases,
        f'    *) echo "there is no member ${index}" >&2; exit 2 ;;',
        "esac",
    ]


def _recipe(recipe: Path, home: Path) -> Path | str:
    """A recipe as it is named where the job runs: by its name, or by its place in the checkout."""
    path = recipe.resolve()
    if path.parent == recipes().resolve():
        return path.stem
    return path if home == ROOT else home / path.relative_to(ROOT)


def kubernetes(job: Job) -> str:
    """Manifests: an indexed Job, whose indices are nodes or members; with several nodes a Service, by which they meet.

    Errors: ParameterError for a recipe that is not in the checkout, and so not in an image of it.
    """
    if not job.recipe.resolve().is_relative_to(ROOT):
        raise ParameterError(
            f"recipe: given {str(job.recipe)!r}; allowed with --on k8s is one in {ROOT}, which an image has"
        )
    if job.nodes == 1:
        parts = [_job(job, dns_name(job.name), job.members)]
    else:
        names = [dns_name(options[options.index("--name") + 1]) for options in job.members]
        parts = [
            part
            for name, given in zip(names, job.members, strict=True)
            for part in _met(job, name, given)
        ]
    head = (
        "# Needed in the cluster: an image with this checkout, installed, in "
        f"{HOME}\n# ({IMAGE}), and a volume that every pod may write to ({CLAIM}).\n"
    )
    return head + yaml.safe_dump_all(parts, sort_keys=False, width=1000)


def _met(job: Job, name: str, given: list[str]) -> list[dict[str, Any]]:
    return [_service(name), _job(job, name, [given])]


def _service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def _job(job: Job, name: str, members: list[list[str]]) -> dict[str, Any]:
    count = len(members) if job.nodes == 1 else job.nodes
    alone = job.nodes == 1
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completionMode": "Indexed",
            "completions": count,
            "parallelism": min(count, job.at_once or count) if alone else count,
            # of a sweep, one that fails does not stop the others
            **({"backoffLimitPerIndex": 2} if alone and job.array else {"backoffLimit": 4}),
            "podFailurePolicy": {"rules": [_wrong_input(name, alone and job.array)]},
            "template": {"spec": _pod(job, name, members)},
        },
    }


def _wrong_input(name: str, member: bool) -> dict[str, Any]:
    """Status 2 says that what was given is wrong, which no second try mends."""
    exits = {"containerName": "onepass", "operator": "In", "values": [2]}
    return {"action": "FailIndex" if member else "FailJob", "onExitCodes": exits}


def unexpanded(text: str) -> str:
    """Return the text that Kubernetes turns into `text`: it reads $$ as $, and $(NAME) as a variable of the container.

    Source: Kubernetes API reference, v1.Container, `command`.
    """
    return text.replace("$", "$$")


def _pod(job: Job, name: str, members: list[list[str]]) -> dict[str, Any]:
    command = shlex.join(["python", "-m", "nbs_lib", "run", str(_recipe(job.recipe, Path(HOME)))])
    if job.nodes == 1:
        cases = " ".join(
            f"{place}) set -- {shlex.join(given)} ;;" for place, given in enumerate(members)
        )
        script = f'case "$JOB_COMPLETION_INDEX" in {cases} esac; exec {command} "$@"'
    else:
        meet = f'-p train.num_nodes={job.nodes} -p train.node_rank="$JOB_COMPLETION_INDEX"'
        meet += f" -p train.master_addr={name}-0.{name} -p train.master_port={PORT}"
        script = f"exec {command} {shlex.join(members[0])} {meet}"
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        **({"subdomain": name} if job.nodes > 1 else {}),
        "containers": [
            {
                "name": "onepass",
                "image": IMAGE,
                "workingDir": HOME,
                "command": ["/bin/sh", "-c", unexpanded(script)],
                "resources": {"limits": {"nvidia.com/gpu": job.gpus or 1}},
                "volumeMounts": [
                    {"name": "outputs", "mountPath": f"{HOME}/outputs"},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                ],
            }
        ],
        "volumes": [
            {"name": "outputs", "persistentVolumeClaim": {"claimName": CLAIM}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
