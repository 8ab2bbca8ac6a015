"""The wheel in an environment of its own, without the checkout: init, run, lab, push, doctor."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from environments import new_environment

from nbs_lib.files import ROOT

pytestmark = pytest.mark.slow

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "constraints.txt", "LICENSE")
# a wheel's user may have no DeepSpeed; of a module that is None, nothing is found or imported
NO_DEEPSPEED = "import sys; sys.modules['deepspeed'] = None\n"
QUICK = (
    "prepare.max_examples=16 prepare.num_processes=1 train.steps=2 train.batch_size=2 "
    "train.num_processes=1 train.validation_steps=0 compare.steps=2 compare.captions=0 "
    "compare.clip=none"
).split()
PROMPTS = "compare.prompts=[A person holding a cat]"
STOCK = """
from diffusers import StableDiffusionPipeline
from nbs_lib.models import EMBEDDED
pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED, safety_checker=None)
pipe.load_lora_weights("outputs/demo/adapter")
import nbs_lib
print(nbs_lib.__file__)
"""


@dataclass
class Installed:
    """An environment with the wheel, and an empty folder to work in."""

    environment: Path
    folder: Path

    def run(self, *command: object, cwd: Path | None = None, status: int = 0) -> Any:
        """Run a program of the environment to its end, and check its status."""
        program, *arguments = map(str, command)
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [self.environment / "bin" / program, *arguments],
            cwd=cwd or self.folder,
            env=variables | {"PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Return a wheel, built from a copy of the sources: a build writes beside them."""
    sources = tmp_path_factory.mktemp("sources") / "onepass"
    for name in ("nbs_lib", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    for name in SOURCES:
        shutil.copy(ROOT / name, sources)
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", "."]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options], cwd=sources, check=True)
    [built] = (sources / "dist").glob("onepass-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    """Return an environment with the wheel, and without DeepSpeed."""
    environment = tmp_path_factory.mktemp("an environment") / "venv"
    python = new_environment(environment)
    [packages] = (environment / "lib").glob("python*/site-packages")
    (packages / "no_deepspeed.pth").write_text(NO_DEEPSPEED)
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    # onepass is there already, as the editable one of the shared packages
    subprocess.run([*command, "--no-index", "--ignore-installed", wheel], check=True)
    return Installed(environment, tmp_path_factory.mktemp("an empty folder"))


@pytest.fixture(scope="module")
def project(installed) -> Path:
    """Return a project that `onepass init` wrote, and the result of the first run in it."""
    installed.run("onepass", "init", "my project")
    return installed.folder / "my project"


def files_below(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_project_has_the_notebooks_and_recipes_of_the_repository(installed, project):
    expected = files_below(ROOT / "notebooks")
    names = subprocess.check_output(["git", "ls-files", "notebooks"], cwd=ROOT, text=True).split()
    assert set(files_below(project / "notebooks")) == {
        name.removeprefix("notebooks/") for name in names
    }
    assert files_below(project / "notebooks").items() <= expected.items()
    assert (project / "outputs").is_dir()
    recipe = project / "notebooks" / "recipes" / "demo.yaml"
    shipped = recipe.read_bytes()
    recipe.write_bytes(b"# Mine.\n" + shipped)
    (project / "notebooks" / "0_start.ipynb").unlink()
    result = json.loads(installed.run("onepass", "init", "--json", project).stdout)
    assert result["written"] == ["notebooks/0_start.ipynb"]
    assert result["differing"] == ["notebooks/recipes/demo.yaml"]
    assert recipe.read_text().startswith("# M")
    recipe.write_bytes(shipped)


def test_outside_of_a_project_the_commands_say_how_to_make_one(installed):
    for command in (("run", "demo"), ("recipes",), ("lab",)):
        error = installed.run("onepass", *command, status=2).stderr
        assert "onepass init my-project" in error and error.count("\n") == 1
    assert list(installed.folder.glob("outputs*")) == []
    assert installed.run("onepass", "list").stdout == "no runs\n"


def test_init_refuses_a_file_and_a_checkout(installed):
    (installed.folder / "file").write_text("")
    assert "given" in installed.run("onepass", "init", "file", status=2).stderr
    command = [sys.executable, "-m", "nbs_lib", "init", str(installed.folder / "other")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "is a project itself" in done.stderr
    assert not (installed.folder / "other").exists()


def test_a_run_from_a_project_trains_plainly_without_deepspeed(installed, project):
    options = [part for parameter in [*QUICK, PROMPTS] for part in ("-p", parameter)]
    # from a folder below the project
    installed.run("onepass", "run", "demo", *options, cwd=project / "outputs")
    run = project / "outputs" / "demo"
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done" and record["stages"]["train"]["zero_stage"] is None
    assert "DeepSpeed is not installed: plain" in (run / "2_train.ipynb").read_text()
    assert record["stages"]["prepare"]["commit"] is None, "the project is in no checkout"
    assert (run / "report.html").is_file()
    assert "demo" in installed.run("onepass", "list", cwd=project).stdout
    library = installed.run("python", "-c", STOCK, cwd=project).stdout.splitlines()[-1]
    assert Path(library).is_relative_to(installed.environment)
    push = ("push", "demo", "--to", "me/demo", "--license", "mit", "--dry-run")
    installed.run("onepass", *push, cwd=project)
    assert (run / "export" / "hub" / "README.md").is_file()


def test_a_missing_package_is_an_extra_of_the_installed_wheel(installed):
    source = (
        "from nbs_lib.launch import errors, preflight\n"
        "try:\n"
        "    preflight._check_extra('not_there')\n"
        "except errors.LaunchError as failure:\n"
        "    print(failure)"
    )
    message = installed.run("python", "-c", source).stdout
    assert "it comes with `pip install 'onepass[not_there]'`" in message


def test_the_lab_opens_on_the_project_s_copies(installed, project):
    # a JupyterLab that ends at once
    installed.run("onepass", "lab", "--", "--version", cwd=project)
    copies = files_below(project / "outputs" / "lab")
    assert {f"{name}.ipynb" for name in ("0_start", "1_prepare", "2_train", "3_compare")} <= set(
        copies
    )


def test_the_doctor_holds_the_packages_against_the_tested_versions(installed, project):
    # without DeepSpeed, something is wrong
    printed = installed.run("onepass", "doctor", "--json", cwd=project, status=1).stdout
    findings = {finding["check"]: finding for finding in json.loads(printed)}
    assert findings["Python"]["state"] == findings["packages"]["state"] == "good"
    assert findings["DeepSpeed"]["fix"] == "onepass run demo -p train.deepspeed=false"


# as a user would change the cells
SMALL = {
    "max_examples": 16,
    "steps": 2,
    "batch_size": 2,
    "prompts": ["A person holding a cat"],
    "captions": 0,
    "clip": "none",
}
# of Colab, and of Kaggle; accelerate, for one, behaves differently there
PLATFORM = {"COLAB_RELEASE_TAG": "release", "KAGGLE_KERNEL_RUN_TYPE": "Interactive"}


def small_notebook(path: Path):
    """Write the notebook for Colab with parameters that take seconds."""
    page = nbformat.read(ROOT / "notebooks" / "colab.ipynb", 4)
    for cell in page.cells:
        # the captions of prepare are words
        values = SMALL if cell.id != "prepare-cell-1" else {"max_examples": SMALL["max_examples"]}
        for name, value in values.items():
            cell.source = re.sub(rf"(?m)^{name} = .*", f"{name} = {value!r}", cell.source)
    nbformat.write(page, path)


def test_the_notebook_for_colab_installs_trains_and_ends_with_the_report(wheel, tmp_path):
    python = new_environment(tmp_path / "environment")
    (tmp_path / "google" / "colab").mkdir(parents=True)
    (tmp_path / "google" / "colab" / "__init__.py").write_text("")
    (content := tmp_path / "content").mkdir()
    small_notebook(content / "colab.ipynb")
    command = [python, "-m", "papermill", "colab.ipynb", "done.ipynb", "-k", "python3"]
    variables = os.environ | PLATFORM | {"PYTHONPATH": str(tmp_path), "PIP_NO_INDEX": "1"}
    done = subprocess.run(
        [*command, "-p", "wheel", wheel, "--no-progress-bar"],
        cwd=content,
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((content / "outputs" / "notebook" / "run.json").read_text())
    assert {name: stage["status"] for name, stage in record["stages"].items()} == dict.fromkeys(
        ("prepare", "train", "compare"), "done"
    )
    # without a GPU, as everywhere else
    assert record["stages"]["train"]["processes"] == 2
    [shown] = nbformat.read(content / "done.ipynb", 4).cells[-1].outputs
    frame = html.unescape(shown.data["text/html"])
    assert (content / "outputs" / "notebook" / "report.html").read_text() in frame
