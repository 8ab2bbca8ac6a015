"""The pages of docs/reference/: current, and complete."""

import re

import pytest
import typer

from nbs_lib.cli.app import app
from nbs_lib.config import NOTEBOOKS
from nbs_lib.config.fields import describe
from nbs_lib.pipeline.recipes import recipe_names
from nbs_lib.reference import api, figures, formats
from nbs_lib.reference.markdown import docstring, inline, table
from nbs_lib.reference.pages import FOLDER, PAGES
from nbs_lib.reference.source import definitions


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name):
    written = (FOLDER / name).read_text("utf-8")
    assert written == PAGES[name](), "python -m nbs_lib.reference writes it"


@pytest.mark.parametrize("path", figures.pages(), ids=lambda path: path.stem)
def test_the_figures_of_a_page_are_those_of_the_benchmarks(path):
    text = path.read_text("utf-8")
    assert text == figures.fill(text), "python -m nbs_lib.reference writes them"


def headings(name: str) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", (FOLDER / name).read_text("utf-8"), re.M))


def test_there_is_no_other_page():
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


def test_every_command_and_recipe_has_its_section():
    groups = typer.main.get_command(app).commands
    commands = {f"onepass {name}" for name in groups if name != "cache"}
    commands |= {f"onepass cache {name}" for name in groups["cache"].commands}
    assert commands <= headings("command.md")
    assert set(recipe_names()) <= headings("recipes.md")


def test_every_parameter_has_its_row():
    rows = (FOLDER / "parameters.md").read_text("utf-8")
    for cls in NOTEBOOKS.values():
        assert all(f"| `{parameter.name}` |" in rows for parameter in describe(cls))


def test_everything_public_has_a_docstring():
    for module in api.MODULES:
        for definition in definitions(module):
            assert definition.docstring, f"{module}.{definition.name}"


def test_a_format_is_described_in_more_than_a_sentence():
    sections = formats.page().split("\n## ")[1:]
    assert len(sections) == len(formats.SECTIONS)
    # the map of a run or a listing of fields is the point of the page
    assert all("```text" in section for section in sections)


def test_a_name_is_found_through_the_imports_that_lead_to_it():
    run, sweep = (
        next(each for each in definitions("nbs_lib.pipeline") if each.name == name)
        for name in ("run", "sweep")
    )
    assert run.code.startswith("def run(\n    recipe: str,\n    parameters: Overrides = (),")
    assert run.code.endswith(") -> Run | None") and sweep.docstring.startswith("Run a recipe with")


def test_a_docstring_becomes_paragraphs_lists_and_blocks():
    text = """Return a < b * c.

    name: a thing
        and more of it
    other: `a * b`
    Errors: KeyError

    folder/
      file    what it is
    """
    assert docstring(text) == (
        "Return a &lt; b \\* c.\n\n"
        "- `name`: a thing and more of it\n- `other`: `a * b`\n\n"
        "*Errors:* KeyError\n\n"
        "```text\nfolder/\n  file    what it is\n```"
    )


def test_a_bar_does_not_end_a_cell():
    assert table(["a"], [["x | y"]]) == "| a |\n|---|\n| x \\| y |"
    assert inline("a\n  b") == "a b"
