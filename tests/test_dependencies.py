"""Agreement of pyproject.toml (ranges), constraints.txt (pins) and environment.yml (conda)."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = (ROOT / "environment.yml").read_text()
PACKAGES = yaml.safe_load(CONDA)["dependencies"]
DIRECT = [
    Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]
SITE = [Requirement(line) for line in PROJECT["optional-dependencies"]["docs"]]
PIN_LINES = (ROOT / "constraints.txt").read_text().splitlines()[1:]
PINS = {
    canonicalize_name(name): Version(pin) for name, pin in (line.split("==") for line in PIN_LINES)
}


COMMANDS = {
    "import-linter",
    "ipykernel",
    "jupyterlab",
    "mlflow-skinny",
    "nbstripout",
    "pytest-xdist",
    "ruff",
}
"""Packages that are run, or used by others; no line of ours imports them."""


OURS = {
    path.stem
    for folder in ("benchmarks", "tests", "tests/browser")
    for path in (ROOT / folder).glob("*.py")
} | {"tests", "sections"}
"""Modules that stand beside those that import them."""


def by_name(requirement: Requirement) -> str:
    return requirement.name


def test_constraints_are_a_header_and_sorted_pins():
    header, *lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert header.startswith("#")
    assert lines == sorted(lines, key=str.lower)
    assert len(PINS) == len(lines), "a package is pinned twice"
    assert not [name for name, pin in PINS.items() if pin.local], (
        "a local version like +cpu ties the pin to one machine"
    )


@pytest.mark.parametrize("requirement", DIRECT + SITE, ids=by_name)
def test_every_dependency_is_pinned_within_its_range(requirement):
    pin = PINS.get(canonicalize_name(requirement.name))
    assert pin, f"{requirement.name} is in pyproject.toml and not in constraints.txt"
    assert pin in requirement.specifier


@pytest.mark.parametrize("requirement", DIRECT, ids=by_name)
def test_the_installed_version_is_the_tested_one(requirement):
    installed = Version(version(requirement.name))
    assert Version(installed.public) == PINS[canonicalize_name(requirement.name)]


def test_what_the_library_and_its_tests_import_is_declared_and_nothing_else():
    imported = set()
    for path in [
        path
        for folder in ("nbs_lib", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.partition(".")[0] for name in names}
    imported -= {"nbs_lib"} | OURS | sys.stdlib_module_names
    owners = packages_distributions()
    used = {canonicalize_name(owner) for name in imported for owner in owners[name]}
    declared = {canonicalize_name(requirement.name) for requirement in DIRECT}
    assert declared - used == COMMANDS and used <= declared


def test_conda_installs_through_the_other_two_files():
    pip = [package["pip"] for package in PACKAGES if isinstance(package, dict)]
    assert pip == [["-c constraints.txt", "-e .[dev]"]]


def test_conda_brings_python_and_a_compiler():
    names = [package for package in PACKAGES if isinstance(package, str)]
    assert {"pip", "cxx-compiler"} <= set(names)
    (python,) = re.findall(r"^python=(\d+\.\d+)\.\*$", "\n".join(names), re.MULTILINE)
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")


def test_every_conda_dependency_says_what_it_is_for():
    lines = CONDA.split("dependencies:\n")[1].splitlines()
    assert len(lines) >= 6
    assert [line for line in lines if not re.search(r"\S  ?# \w", line)] == []
