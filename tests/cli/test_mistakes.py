"""Mistakes of people and machines: one clear sentence, the right status, nothing half-written.

The next command works.

Real processes throughout, on notebooks that do little.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbs_lib.config import STAGES
from nbs_lib.run.run import REFUSALS

pytestmark = pytest.mark.slow

NOBODY = "x" * 300
RECIPE = "recipe.yaml"


@pytest.fixture
def name(request) -> str:
    """A name of its own for a test's run."""
    return re.sub(r"\W+", "-", request.node.name).strip("-")[:80]


def check_one_sentence(finished: subprocess.CompletedProcess, word: str):
    """One sentence, with the word in it."""
    lines = finished.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("onepass: ") and word in lines[0], (
        finished.stderr
    )


WRONG = {
    "no such command": (["runn"], "Did you mean 'run'"),
    "no recipe": (["run"], "Missing argument"),
    "no such option": (["run", "demo", "--nam", "x"], "No such option: --nam"),
    "a misspelt recipe": (["run", "demmo"], "did you mean demo?"),
    "a misspelt stage": (["run", "demo", "-p", "trian.steps=5"], "did you mean train?"),
    "a misspelt parameter": (["run", "demo", "-p", "train.stepz=5"], "did you mean steps?"),
    "a parameter of no stage": (["run", "demo", "-p", "steps=5"], "allowed is STAGE.NAME=VALUE"),
    "a misspelt stage to begin from": (["run", "demo", "--from", "trian"], "did you mean train?"),
    "a misspelt run": (["show", "whole-rum"], "did you mean whole-run?"),
    "a run that was never there": (["resume", "nothing of the kind"], "there is no such run"),
    "a word for a number": (
        ["run", "demo", "-p", "train.steps=many"],
        "train.steps: given 'many'; allowed is a whole",
    ),
    "a number for true or false": (
        ["run", "demo", "-p", "train.deepspeed=2"],
        "allowed is true or false",
    ),
    "half a step": (["run", "demo", "-p", "train.steps=1.5"], "allowed is a whole number"),
    "one number for a list": (
        ["run", "demo", "-p", "compare.seeds=1"],
        "allowed is a list of whole numbers",
    ),
    "a negative count": (
        ["run", "demo", "-p", "prepare.max_examples=-5"],
        "allowed is a whole number from 0",
    ),
    "no steps": (["run", "demo", "-p", "train.steps=0"], "allowed is a whole number from 1"),
    "a number beyond all": (
        ["run", "demo", "-p", "train.learning_rate=1e400"],
        "allowed is 0, or a number from",
    ),
    "a choice that is none": (
        ["run", "demo", "-p", "train.method=lore"],
        "one of lora, rslora, dora, full",
    ),
    "a value cut off": (["run", "demo", "-p", "compare.seeds=[1,"], "not good YAML"),
    "a run set twice": (["run", "demo", "-p", "train.run=x"], "use --name"),
    "a name that climbs out": (["run", "demo", "--name", "../up"], "--name"),
    "a name of the caches": (["run", "demo", "--name", "cache"], "--name"),
    "a name too long": (["run", "demo", "--name", NOBODY], "--name"),
    "removing what climbs out": (["rm", "../notebooks"], "there is no such run"),
    "removing what is not there": (["rm", "none-of-it*"], "no run's name fits it"),
    "a sweep of one": (["sweep", "demo", "-p", "train.rank=4"], "no parameter has several values"),
    "a sweep with a wrong member": (
        ["sweep", "demo", "-p", "train.rank=4,none"],
        "allowed is a whole number",
    ),
    "a sweep backwards": (["sweep", "demo", "-p", "train.seed=2..0"], "FIRST..LAST"),
    "a sweep without end": (
        ["sweep", "demo", "-p", "train.rank=1..100", "-p", "train.seed=0..99"],
        "10000 members",
    ),
    "a sweep by nobody": (
        ["sweep", "demo", "-p", "train.rank=4,8", "--jobs", "0"],
        "--jobs: given 0",
    ),
    "a sweep by nobody on a cluster": (
        ["sweep", "demo", "-p", "train.rank=4,8", "--jobs", "0", "--on", "slurm"],
        "--jobs: given 0",
    ),
    "a sweep of one parameter twice": (
        ["sweep", "demo", "-p", "train.rank=4,8", "-p", "train.rank=16"],
        "is given twice",
    ),
    "two seeds": (
        ["run", "demo", "--seed", "5", "-p", "train.seed=3"],
        "--seed: given with train.seed",
    ),
    "a job that would begin again": (
        ["run", "demo", "--on", "slurm", "--from", "train"],
        "given with --from",
    ),
    "a job only said": (["run", "demo", "--on", "slurm", "--dry-run"], "given with --dry-run"),
    "a cluster that is none": (["run", "demo", "--on", "cloud"], "allowed is one of slurm, k8s"),
    "an order by nothing": (["list", "--sort", "lost"], "did you mean loss?"),
    "a condition that is none": (["list", "--where", "loss"], "allowed is NAME=VALUE"),
}


@pytest.fixture(scope="module")
def finished_run(project):
    """A run that is there."""
    project.onepass("run", "demo", "--name", "whole-run")
    return project


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_input_is_one_sentence_and_writes_nothing(finished_run, mistake):
    arguments, word = WRONG[mistake]
    before = sorted(finished_run.outputs.rglob("*"))
    check_one_sentence(finished_run.onepass(*arguments, status=2), word)
    assert sorted(finished_run.outputs.rglob("*")) == before


RECIPES = {
    "a tab": ("train:\n\tsteps: 1\n", "line 2: found character '\\t'"),
    "a key twice": ("train:\n  steps: 1\n  steps: 2\n", "line 3: steps stands twice"),
    "a cycle": ("train: &t\n  steps: *t\n", "parameter train.steps"),
    "a cycle in a list": ("compare:\n  seeds: &s [1, *s]\n", "parameter compare.seeds"),
    "a misspelt stage": ("trian:\n  steps: 1\n", "did you mean train?"),
    "a misspelt parameter": ("train:\n  setps: 1\n", "did you mean steps?"),
    "nothing in it": ("", "must be a mapping"),
    "no text": (b"\xff\xfe\x00", "cannot be read as text"),
    "an anchor that is none": ("train: *x\n", "undefined alias"),
}


@pytest.mark.parametrize("mistake", RECIPES)
def test_damaged_recipe_is_one_sentence(project, tmp_path, mistake):
    content, word = RECIPES[mistake]
    path = tmp_path / RECIPE
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check_one_sentence(project.onepass("run", path, "--name", "never", status=2), word)
    assert not (project.outputs / "never").exists()


def test_recipe_that_is_a_folder_is_one_sentence(project, tmp_path):
    check_one_sentence(project.onepass("run", tmp_path, status=2), "allowed is one of")


def failed(project, name: str, stage: str, does: str, word: str):
    """Check the two lines about a failed stage, its evidence, and that the next command resumes."""
    finished = project.onepass("run", "demo", "--name", name, status=1, **{f"DOES_{stage}": does})
    first, second = finished.stderr.strip().splitlines()
    folder = project.outputs / name
    page = folder / f"{list(STAGES).index(stage) + 1}_{stage}.ipynb"
    assert word in first and second == f"{page} shows where"
    assert (
        page.is_file()
        and page.with_suffix(".html").is_file()
        and word.split(":")[0] in (folder / "log.txt").read_text()
    )
    record = project.record(name)
    assert (
        record["status"] == record["stages"][stage]["status"] == "failed"
        and record["stages"][stage]["error"]
    )
    assert f"{name}  failed" in re.sub(" +", "  ", project.onepass("list", name).stdout)
    assert resumes(project, name)


def resumes(project, name: str) -> bool:
    """The next command ends well, and nothing is left half-written."""
    project.onepass("resume", name)
    hidden = [path for path in (project.outputs / name).rglob(".*")]
    return project.record(name)["status"] == "done" and hidden == []


def test_failed_stage_prints_its_error(project, name):
    failed(
        project,
        name,
        "train",
        "raise ValueError('what was given is no good')",
        "ValueError: what was given is no good",
    )


def test_dry_run_refuses_a_missing_base(project, name):
    dry = ("run", "demo", "--name", name, "--dry-run", "-p", "prepare.base=/no/such/base")
    check_one_sentence(
        project.onepass(*dry, status=2), "base '/no/such/base': there is no such folder"
    )
    assert not (project.outputs / name).exists()


@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_a_missing_file_of_prompts_is_refused_before_anything_is_done(project, name, options):
    """The comparison comes last, and would refuse it after the training."""
    command = ("run", "demo", "--name", name, *options, "-p", "compare.prompts_file=none.txt")
    check_one_sentence(project.onepass(*command, status=2), "'none.txt': there is no such file")
    assert not (project.outputs / name).exists()


def test_replacing_a_finished_training_is_announced(project, name):
    command = ["run", "demo", "--name", name]
    project.onepass(*command)
    finished = project.onepass(*command, "-p", "train.steps=50").stdout
    text = "begins at step 0, and what it has learned takes the place of the finished training's"
    assert f"[2/3] train: steps was 400, is 50; {text}" in finished
    assert project.record(name)["stages"]["train"]["parameters"]["steps"] == 50


@pytest.mark.parametrize("error", REFUSALS)
def test_refused_source_or_base_leaves_no_run(project, name, error):
    refused = f"from nbs_lib.config.validation import setting\nclass {error}(ValueError): pass\n"
    refused += (
        f"raise {error}('it has nothing in it; give ' + setting('prepare', 'captions', 'names'))"
    )
    finished = project.onepass("run", "demo", "--name", name, status=2, DOES_prepare=refused)
    assert (
        finished.stderr == f"onepass: prepare failed: {error}: it has nothing in it; "
        "give -p prepare.captions=names\n"
    )
    assert not [path for path in project.outputs.iterdir() if name in path.name]
    assert (
        name not in project.onepass("list").stdout
        and name not in (project.outputs / "index.html").read_text()
    )
    project.onepass("run", "demo", "--name", name)
    project.onepass(
        "run", "demo", "--name", name, "--from", "prepare", status=2, DOES_prepare=refused
    )
    assert project.record(name)["status"] == "failed", (
        "what was there before is kept, and says how it ended"
    )


def test_killed_kernel_is_one_sentence(project, name):
    failed(
        project,
        name,
        "train",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "DeadKernelError: Kernel died; most often memory ran out",
    )


def test_output_of_the_kernel_process_goes_to_the_log(project, name):
    # Python itself prints such text if a thread is still running at its end
    says = "os.write(2, b'said by no notebook')"
    finished = project.onepass("run", "demo", "--name", name, DOES_train=says)
    assert finished.stderr == "" and "said by no notebook" not in finished.stdout
    assert "said by no notebook" in (project.outputs / name / "log.txt").read_text()


PORT_THIEF = """
import json, os, socket, sys
taken, file, *others = sys.argv[1:]
if not os.path.exists(taken):
    open(taken, "w").close()
    other = socket.create_server(("127.0.0.1", json.load(open(file))["shell_port"]))
    other.set_inheritable(True)
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", file, *others])
"""


def test_kernel_whose_port_is_taken_is_started_again(project, name, tmp_path):
    # Jupyter chooses the ports, and the kernel binds them later: another process may be quicker
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-c", PORT_THIEF, str(tmp_path / "taken"), "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    project.onepass("run", "demo", "--name", name, JUPYTER_PATH=str(tmp_path))
    assert "Address already in use" in (project.outputs / name / "log.txt").read_text()
    assert project.record(name)["status"] == "done"


def test_kernel_out_of_memory_is_one_sentence(project, name):
    failed(project, name, "prepare", "bytearray(1 << 62)", "MemoryError; most often memory ran out")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_signal_in_a_stage_interrupts_the_run(project, name, stage, sent, status):
    """Sent to the command alone, as `kill` and a cluster do; a terminal sends SIGINT to all."""
    process = project.start("run", "demo", "--name", name, **{f"DOES_{stage}": "time.sleep(100)"})
    begun(project, name, stage, process)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    first, second = err.strip().splitlines()
    assert (
        first == f"onepass: {stage} was interrupted; the same command goes on from there"
        and "shows where" in second
    )
    record = project.record(name)
    assert record["status"] == record["stages"][stage]["status"] == "interrupted"
    assert resumes(project, name)


def begun(project, name: str, stage: str, process: subprocess.Popen):
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < end
        path = project.outputs / name / "run.json"
        if (
            path.exists()
            and project.record(name).get("stages", {}).get(stage, {}).get("status") == "running"
        ):
            return
        time.sleep(0.05)


def test_signal_before_the_first_stage_ends_the_command(project, name):
    process = project.start("run", "demo", "--name", name)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (
        143,
        -signal.SIGTERM,
    )  # the latter: it had not come to its own handler yet
    project.onepass("run", "demo", "--name", name)


def test_second_command_is_refused_and_names_the_first(project, name):
    first = project.start("run", "demo", "--name", name, DOES_prepare="time.sleep(100)")
    begun(project, name, "prepare", first)
    for command in (["run", "demo", "--name", name], ["resume", name], ["rm", name]):
        finished = project.onepass(*command, status=1)
        check_one_sentence(finished, f"being worked on by another process, {first.pid} on ")
        assert f"(onepass run demo --name {name})" in finished.stderr
    assert "running" in project.onepass("list", name).stdout
    first.kill()
    first.communicate()
    assert resumes(
        project, name
    )  # the lock of the dead is taken over, as soon as its kernel has ended


def test_lock_of_a_dead_process_is_taken_over(project, name):
    folder = project.outputs / name
    folder.mkdir(parents=True)
    dead = {
        "pid": 2**22 - 1,
        "begun": "1",
        "parent": 1,
        "host": "here",
        "since": "2020-01-01",
        "what": "onepass run demo",
    }
    for lock in (".stage.lock", ".recipe.lock"):
        (folder / lock).write_text(json.dumps(dead))
    project.onepass("run", "demo", "--name", name)
    assert resumes(project, name)


def test_killed_run_is_listed_as_interrupted(project, name):
    process = project.start("run", "demo", "--name", name, DOES_train="time.sleep(100)")
    begun(project, name, "train", process)
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while "interrupted" not in project.onepass("list", name).stdout:
        assert time.monotonic() < end
    assert resumes(project, name)


@pytest.fixture
def outputs_on(project, mount, tmp_path):
    """A project whose outputs/ is a file system of its own: `outputs_on("size=1m")`."""

    def call(options: str):
        other = tmp_path / "project"
        shutil.copytree(project.folder, other, ignore=shutil.ignore_patterns("outputs"))
        moved = object.__new__(type(project))
        moved.folder, moved.outputs = other, mount(other / "outputs", options)
        return moved

    return call


def remount(folder: Path, options: str):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_read_only_disk_is_one_sentence(outputs_on):
    project = outputs_on("size=4m")
    remount(project.outputs, "ro")
    check_one_sentence(
        project.onepass("run", "demo", status=1), "cannot be read or written: Read-only file system"
    )
    assert project.onepass("list").stdout == "no runs\n"
    check_one_sentence(project.onepass("index", status=1), "Read-only file system")
    remount(project.outputs, "rw")
    project.onepass("run", "demo")


def test_run_on_a_full_disk_resumes_when_there_is_room(outputs_on):
    project = outputs_on("size=2m")
    full = "open(run.folder / 'big', 'wb').write(bytes(1 << 24))"
    finished = project.onepass("run", "demo", status=1, DOES_train=full)
    assert "No space left on device" in finished.stderr.splitlines()[0]
    assert project.record("demo")["stages"]["train"]["status"] == "failed"
    (project.outputs / "demo" / "big").unlink()
    remount(project.outputs, "size=8m")
    assert resumes(project, "demo")


def test_clock_set_back_changes_nothing(project, name):
    """The files of the first run then lie in the future."""
    project.onepass("run", "demo", "--name", name)
    folder, later = project.outputs / name, time.time() + 10**8
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(re.sub(r'"started": "\d+', '"started": "2099', text))
    for path in folder.rglob("*"):
        os.utime(path, (later, later))
    assert project.onepass("resume", name).stdout.count("unchanged, kept") == 3
    again = project.onepass("run", "demo", "--name", name, "-p", "train.steps=7").stdout
    assert "[2/3] train: steps was 400, is 7" in again and "prepare: unchanged, kept" in again
    assert "done" in project.onepass("list", name, "--sort", "started").stdout


def test_damaged_record_is_one_sentence(project, name):
    folder = project.outputs / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"stages": {"prep')
    check_one_sentence(
        project.onepass("resume", name, status=1), "run.json is damaged; remove it and start again"
    )
    check_one_sentence(project.onepass("show", name, status=1), "run.json is damaged")
    assert "damaged" in project.onepass("list", name).stdout
    (folder / "run.json").unlink()
    project.onepass("run", "demo", "--name", name)


def test_closed_stdout_prints_no_error(project):
    process = project.start("list", "--json")
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(60) in (0, 1)  # the latter is typer's own


SLOW = """
import os, signal, sys, time
from nbs_lib.cli import app as commands

@commands.app.command()
def slow(name: str):
    with commands.report_errors():
        print("begun")
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(60)

commands.main()
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_outside_of_a_notebook_is_one_sentence(python, name, status):
    finished = python(SLOW, "slow", name)
    assert finished.returncode == status and finished.stdout == "begun\n"
    check_one_sentence(finished, "interrupted")
