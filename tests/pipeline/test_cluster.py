"""Job scripts and manifests: Kubernetes' schema, and Slurm's script with a stand-in for srun."""

import getpass
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from nbs_lib.config.validation import ParameterError
from nbs_lib.pipeline.cluster import (
    Job,
    dns_name,
    escape_dollars,
    kubernetes_manifest,
    slurm_script,
    write_job,
)
from nbs_lib.pipeline.paths import recipes

SCHEMA = json.loads((Path(__file__).parent / "kubernetes.json").read_text())
KINDS = {"Job": "io.k8s.api.batch.v1.Job", "Service": "io.k8s.api.core.v1.Service"}
HOSTILE = """compare.prompts=["it's a $HOME `id` $(id) $$(PORT) $$$$ $(PORT) $$(( $"]"""
SRUN = """#!/bin/bash
# One task a node, as srun starts them, one after the other.
while [[ $1 == --* ]]; do shift; done
for ((node = 0; node < SLURM_NNODES; node++)); do SLURM_NODEID=$node "$@"; done
"""
RECORDER = """#!/bin/bash
printf '%s\\n' "$*" >> "$RECORD"
"""

CLUSTER = """ClusterName=onepass
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
AuthInfo=socket={folder}/munge
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
ProctrackType=proctrack/pgid
ResumeProgram=/bin/true
SuspendProgram=/bin/true
SuspendTime=60
NodeName=n[1-4] CPUs=2 State=CLOUD
PartitionName=all Nodes=ALL Default=YES
"""


def job(tmp_path, members, nodes=1, gpus=0, max_parallel=0) -> Job:
    return Job(
        "my rün", tmp_path / "a folder", recipes() / "demo.yaml", members, nodes, gpus, max_parallel
    )


ONE = [["--name", "my rün", "-p", HOSTILE]]
SWEPT = [["--name", f"s.rank-{rank}", "-p", f"train.rank={rank}"] for rank in (4, 8, 16)]
SHAPES = {
    "one": (ONE, 1, 0, 0),
    "nodes": (ONE, 4, 8, 0),
    "sweep": (SWEPT, 1, 2, 2),
    "sweep of nodes": (SWEPT, 2, 8, 3),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_manifest_fits_the_kubernetes_schema(tmp_path, shape):
    parts = list(yaml.safe_load_all(kubernetes_manifest(job(tmp_path, *SHAPES[shape]))))
    members, nodes, gpus, max_parallel = SHAPES[shape]
    for part in parts:
        jsonschema.validate(part, SCHEMA | {"$ref": f"#/$defs/{KINDS[part['kind']]}"})
        assert len(part["metadata"]["name"]) <= 63 - 6
    jobs = [part["spec"] for part in parts if part["kind"] == "Job"]
    assert len(jobs) == (len(members) if nodes > 1 else 1)
    assert (
        jobs[0]["completions"] == (nodes if nodes > 1 else len(members))
        and jobs[0]["completionMode"] == "Indexed"
    )
    assert jobs[0]["parallelism"] == (nodes if nodes > 1 else max(max_parallel, 1))
    limits = jobs[0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": gpus or 1}
    assert jobs[0]["template"]["spec"]["terminationGracePeriodSeconds"] == 120, (
        "a training saves before it ends"
    )
    if nodes > 1:
        service = parts[0]
        assert jobs[0]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
        assert service["spec"]["selector"] == {
            "batch.kubernetes.io/job-name": parts[1]["metadata"]["name"]
        }


def test_schema_refuses_an_unknown_field(tmp_path):
    [part] = yaml.safe_load_all(kubernetes_manifest(job(tmp_path, ONE)))
    part["spec"]["completion"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(part, SCHEMA | {"$ref": f"#/$defs/{KINDS['Job']}"})


@pytest.fixture
def run_script(tmp_path, monkeypatch):
    """Commands of a cluster that do nothing but tell; what `python` was called with, by line."""
    for name, source in {
        "srun": SRUN,
        "python": RECORDER,
        "scontrol": "#!/bin/sh\necho first; echo second\n",
    }.items():
        (tmp_path / name).write_text(source)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))

    def call(script: str, shell: str = "bash", **environment: str) -> list[str]:
        (tmp_path / "record").unlink(missing_ok=True)
        subprocess.run([shell, "-c", script], check=True, env=os.environ | environment)
        return (tmp_path / "record").read_text().splitlines()

    return call


def test_slurm_script_runs_one_task_per_node(tmp_path, run_script):
    script = slurm_script(job(tmp_path, ONE, nodes=2, gpus=8))
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n#SBATCH --gpus-per-node=8\n" in script
    lines = run_script(script, SLURM_JOB_NODELIST="n[1-2]", SLURM_JOB_ID="7", SLURM_NNODES="2")
    for rank, line in enumerate(lines):
        location = [
            f"-p {stage}.num_nodes=2 -p {stage}.node_rank={rank} "
            f"-p {stage}.master_addr=first -p {stage}.master_port=20007"
            for stage in ("prepare", "train")
        ]
        assert line == f"-m nbs_lib run demo --name my rün -p {HOSTILE} {' '.join(location)}"
    assert len(lines) == 2


def test_slurm_sweep_is_an_array_of_members(tmp_path, run_script):
    script = slurm_script(job(tmp_path, SWEPT, max_parallel=2))
    assert (
        "#SBATCH --array=0-2%2\n#SBATCH --output=" in script
        and "#SBATCH --exclusive\n" in script
        and "%A_%a.log" in script
    )
    for index, options in enumerate(SWEPT):
        environment = {
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_JOB_ID": "7",
            "SLURM_NNODES": "1",
            "SLURM_ARRAY_TASK_ID": str(index),
        }
        assert run_script(script, **environment) == [f"-m nbs_lib run demo {' '.join(options)}"]


def expand(text: str, variables: dict[str, str]) -> str:
    """Return the text a container gets: $$ is $, $(NAME) a variable's value, any other $ itself.

    Source: kubernetes/third_party/forked/golang/expansion/expand.go
    """

    def one(match: re.Match) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


@pytest.mark.parametrize(
    ("text", "expansion"),
    [
        ("a $(PORT) b", "a 29500 b"),
        ("$$(PORT)", "$(PORT)"),
        ("$$$(PORT)", "$29500"),
        ("$$$$(PORT)", "$$(PORT)"),
        ("$(OTHER) $(PORT", "$(OTHER) $(PORT"),
        ("$5 $ $", "$5 $ $"),
    ],
)
def test_escaped_dollars_expand_to_the_text(text, expansion):
    assert expand(text, {"PORT": "29500"}) == expansion
    for value in (text, expansion):
        assert expand(escape_dollars(value), {"PORT": "29500"}) == value


@pytest.mark.parametrize("shape", ["one", "nodes", "sweep"])
def test_container_runs_the_onepass_command(tmp_path, run_script, shape):
    spec = [
        part
        for part in yaml.safe_load_all(kubernetes_manifest(job(tmp_path, *SHAPES[shape])))
        if part["kind"] == "Job"
    ][0]["spec"]
    shell, _, script = spec["template"]["spec"]["containers"][0]["command"]
    script = expand(script, {"PORT": "29500"})
    for index in range(spec["completions"]):
        [line] = run_script(script, shell, JOB_COMPLETION_INDEX=str(index))
        options = SHAPES[shape][0][index if shape == "sweep" else 0]
        assert line.startswith(f"-m nbs_lib run demo {' '.join(options)}")
        for stage in ("prepare", "train"):
            location = f"{stage}.node_rank={index} -p {stage}.master_addr=onepass-my-r-n"
            assert (location in line) == (shape == "nodes")


@pytest.fixture
def slurm_cluster(tmp_path_factory, monkeypatch, skip_or_fail):
    """Start a Slurm cluster of four cloud nodes that are only named, for Slurm's own dry run."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    lacking = [name for name in ("munged", "slurmctld", "sbatch") if not shutil.which(name)]
    if lacking:
        skip_or_fail(f"{', '.join(lacking)} not found; on Debian: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "slurm.conf").write_text(
        CLUSTER.format(folder=folder, port=port, user=getpass.getuser())
    )
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    files = {"key-file": "key", "socket": "munge", "pid-file": "pid", "seed-file": "seed"}
    munge_options = [f"--{kind}={folder / name}" for kind, name in files.items()]
    log = (folder / "log").open("w")
    options = {"stdout": log, "stderr": log, "start_new_session": True}
    started = [subprocess.Popen(["munged", "--foreground", "--force", *munge_options], **options)]
    try:
        wait_for((folder / "munge").exists)
        started.append(subprocess.Popen(["slurmctld", "-D"], **options))
        wait_for(lambda: subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def wait_for(condition, seconds: float = 30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(("shape", "nodes"), [("one", "n1"), ("sweep", "n1"), ("nodes", "n[1-4]")])
def test_sbatch_accepts_the_script(tmp_path, slurm_cluster, shape, nodes):
    path, _ = write_job("slurm", job(tmp_path, *SHAPES[shape][:2], max_parallel=SHAPES[shape][3]))
    done = subprocess.run(["sbatch", "--test-only", str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and f"on nodes {nodes} in partition all" in done.stderr, done.stderr


def test_sbatch_refuses_more_nodes_than_the_cluster_has(tmp_path, slurm_cluster):
    path, _ = write_job("slurm", job(tmp_path, ONE, nodes=5))
    done = subprocess.run(["sbatch", "--test-only", str(path)], capture_output=True, text=True)
    assert done.returncode == 1 and "configuration is not available" in done.stderr, done.stderr


def test_write_job_returns_file_and_submit_command(tmp_path):
    path, submit = write_job("slurm", job(tmp_path, ONE))
    assert path == tmp_path / "a folder" / "job.sh" and submit == f"sbatch {shlex.quote(str(path))}"
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    with pytest.raises(ParameterError, match="allowed is one of slurm, k8s"):
        write_job("cloud", job(tmp_path, ONE))


def test_kubernetes_refuses_a_recipe_outside_of_the_checkout(tmp_path):
    (tmp_path / "recipe.yaml").write_text("train:\n  steps: 5\n")
    outside = Job("x", tmp_path, tmp_path / "recipe.yaml", ONE, 1, 0)
    assert str(tmp_path / "recipe.yaml") in slurm_script(outside)
    with pytest.raises(ParameterError, match="which an image has"):
        kubernetes_manifest(outside)


def test_dns_names_are_unique():
    names = [dns_name(name) for name in ("a b", "a_b", "A b", "a-b", "ü", "x" * 200, "x" * 201)]
    assert len(set(names)) == len(names) and all(
        name.isascii() and len(name) <= 57 for name in names
    )


def test_command_writes_the_job_file(project):
    done = project.onepass(
        "run", "demo", "--name", "hosts", "-p", "train.num_nodes=2", "--on", "slurm", "--json"
    )
    result = json.loads(done.stdout)
    assert (
        result["submit"] == f"sbatch {shlex.quote(result['file'])}"
        and "--nodes=2" in Path(result["file"]).read_text()
    )
    nodes = ("-p", "prepare.num_nodes=3", "-p", "train.num_nodes=2")
    refused = project.onepass("run", "demo", *nodes, "--on", "slurm", status=2)
    assert "parameter prepare.num_nodes: given 3; allowed with --on is" in refused.stderr
    done = project.onepass(
        "sweep", "demo", "--name", "many", "-p", "train.rank=4,8", "--jobs", "2", "--on", "k8s"
    )
    assert (
        "kubectl apply -f" in done.stdout
        and "the same command without --on makes the table" in done.stdout
    )
    assert sorted(path.name for path in project.outputs.glob("many*/*")) == ["job.yaml"]
