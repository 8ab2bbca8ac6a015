"""The notebook rules: a parameter has one home, notebooks are pages, and they are committed without outputs."""

import ast
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from nbs_lib.config import Compare, MakeBase, Play, Prepare, Train
from nbs_lib.config.validation import defaults
from nbs_lib.files import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGE_OF = {
    "1_prepare": Prepare,
    "2_train": Train,
    "3_compare": Compare,
    "playground": Play,
    "picturebook": MakeBase,
}
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def parameters_cell(path: Path) -> str:
    tagged = [c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    return tagged[0].source


def test_the_notebooks_are_there():
    assert {path.stem for path in NOTEBOOKS} == set(STAGE_OF)


@pytest.mark.parametrize("name", STAGE_OF)
def test_parameters_equal_the_stage_s_dataclass(name):
    cls = STAGE_OF[name]
    listed = {
        node.target.id: (ast.unparse(node.annotation), ast.literal_eval(node.value))
        for node in ast.parse(parameters_cell(ROOT / "notebooks" / f"{name}.ipynb")).body
    }
    types = {
        f: t.__name__ if isinstance(t, type) and not hasattr(t, "__args__") else str(t)
        for f, t in cls.__annotations__.items()
    }
    assert {key: value for key, (_, value) in listed.items()} == defaults(cls)
    assert {key: kind for key, (kind, _) in listed.items()} == types
    assert list(listed) == list(defaults(cls))


@by_name
def test_parameters_are_plain_typed_literals_with_a_comment(path):
    for line in parameters_cell(path).splitlines():
        code, _, comment = line.partition("  # ")
        assert comment.strip(), line
        assert code.count("=") == 1, f"papermill does not see a value with a second '=': {line}"
        assert code.split(":")[1].split("=")[0].strip() in (
            "bool",
            "int",
            "float",
            "str",
            "list[str]",
            "list[int]",
            "list[float]",
        ), line


@by_name
def test_a_notebook_is_a_page_not_a_program(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 15
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


@pytest.mark.parametrize("name", STAGE_OF)
def test_all_parameters_go_through_the_config(name):
    code = [
        c.source
        for c in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
        if c.cell_type == "code"
    ]
    assert "import" in code[1] and code[2].startswith(
        f"config = from_notebook({STAGE_OF[name].__name__}, globals())\n"
    )


def test_papermill_s_unknown_parameter_is_refused_by_the_notebook(run_folder, tmp_path):
    notebook, given = ROOT / "notebooks" / "2_train.ipynb", {"run": str(run_folder), "stepz": 5}
    with pytest.raises(PapermillExecutionError, match="parameter stepz: .* did you mean steps?"):
        papermill.execute_notebook(
            notebook, tmp_path / "out.ipynb", given, kernel_name="python3", progress_bar=False
        )
    assert not run_folder.exists()
