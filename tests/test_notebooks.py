"""The notebook rules: one home for each parameter, notebooks as pages, no committed outputs."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from nbs_lib.config import NOTEBOOKS
from nbs_lib.config import __main__ as writer
from nbs_lib.config.stage import defaults
from nbs_lib.files import ROOT
from nbs_lib.reference import colab

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
START = "0_start"  # it shows what there is, and so has no parameters
WHOLE = "colab"  # it is written from the three stages'
OWN = [path for path in PATHS if path.stem != WHOLE]
WITH_PARAMETERS = [path for path in OWN if path.stem != START]
by_name = pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
with_parameters = pytest.mark.parametrize("path", WITH_PARAMETERS, ids=lambda path: path.stem)


def parameters_cell(path: Path) -> str:
    tagged = [c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    return tagged[0].source


def test_the_notebooks_are_there():
    assert {path.stem for path in PATHS} == {START, WHOLE, *NOTEBOOKS}


def test_the_notebook_for_colab_is_written_from_the_three():
    path = ROOT / "notebooks" / colab.NAME
    assert path.read_text() == colab.notebook(), "python -m nbs_lib.reference writes it"
    nbformat.validate(notebook := nbformat.read(path, 4))
    text = "\n".join(cell.source for cell in notebook.cells)
    for name in ("1_prepare", "2_train", "3_compare"):
        cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
        code = [cell.source for cell in cells[4:] if cell.cell_type == "code"]
        assert len(code) > 3 and sum(source in text for source in code) >= len(code) - 1
    installs = [line for line in text.splitlines() if line.startswith(("%", "!"))]
    assert installs == ["%pip install -q {wheel}"] and "slider" not in text.partition("##")[2]
    assert all(not cell.get("outputs") for cell in notebook.cells)


@with_parameters
def test_the_parameters_cell_is_written_from_the_dataclass(path):
    source = parameters_cell(path)
    lines = source.splitlines()
    assert source == writer.cell(source, NOTEBOOKS[path.stem]), "python -m nbs_lib.config writes it"
    assert 1 <= len(lines) <= 12 and max(map(len, lines)) <= 100
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    usual = defaults(NOTEBOOKS[path.stem])
    assert values == {name: usual[name] for name in values} and len(values) == len(lines)


@with_parameters
def test_papermill_sees_every_line_of_the_parameters_cell(path):
    seen = papermill.inspect_notebook(path)
    assert list(seen) == [line.partition(" = ")[0] for line in parameters_cell(path).splitlines()]
    assert all(each["help"] for each in seen.values())


@by_name
def test_a_notebook_is_a_page_not_a_program(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 18
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert (
        notebook.metadata.kernelspec.name == "python3"
        and notebook.metadata.language_info.name == "python"
    )
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        assert not cell.outputs and cell.execution_count is None, "committed with outputs"
        if "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 10
        assert not cell.source.lstrip().startswith(("!", "%"))
        kinds = (ast.FunctionDef, ast.ClassDef)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_all_parameters_go_through_the_config(name):
    code = [
        c.source
        for c in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
        if c.cell_type == "code"
    ]
    assert "import" in code[1] and code[2].startswith(
        f"config = from_notebook({NOTEBOOKS[name].__name__}, globals())\n"
    )


def test_papermill_s_unknown_parameter_is_refused_by_the_notebook(run_folder, tmp_path):
    notebook, given = ROOT / "notebooks" / "2_train.ipynb", {"run": str(run_folder), "stepz": 5}
    with pytest.raises(PapermillExecutionError, match="parameter stepz: .* did you mean steps?"):
        papermill.execute_notebook(
            notebook, tmp_path / "out.ipynb", given, kernel_name="python3", progress_bar=False
        )
    assert not run_folder.exists()


def test_the_start_page_names_every_notebook_and_links_to_it():
    first = nbformat.read(ROOT / "notebooks" / f"{START}.ipynb", 4).cells[0].source
    assert re.findall(r"\[(\w+)\]\(\1\.ipynb\)", first) == list(NOTEBOOKS)
