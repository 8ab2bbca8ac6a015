"""A file of prompts: one on each line, or as public benchmarks hold them.

.jsonl   an object on each line with the prompt in `prompt`, as GenEval's
.tsv     a table with a column `Prompt`, as PartiPrompts'
other    a prompt on each line; empty lines and those that begin with # are left out
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from ...files import ROOT
from ...untrusted_files import read_text
from ..validation import ParameterError

FIELD = "prompt"
FORMS = (
    "a text file in UTF-8 with a prompt on each line, a .jsonl with one in `prompt` on each line, "
    "or a .tsv with a column `Prompt`"
)


def read_prompts(name: str) -> list[str]:
    """Return the prompts of a file, each on one line.

    name: a relative path starts at the project
    Errors: ParameterError for a file that is no such one or has no prompts.
    """
    try:
        return _prompts(ROOT / Path(name).expanduser())
    except FileNotFoundError:
        problem = "there is no such file"
    except OSError as failure:
        problem = failure.strerror
    except ValueError as failure:
        problem = str(failure)
    raise ParameterError(f"given {name!r}: {problem}; allowed is {FORMS}", "prompts_file")


def _prompts(path: Path) -> list[str]:
    lines = read_text(path).splitlines()
    if path.suffix.lower() == ".jsonl":
        prompts = list(_from_objects(lines))
    elif path.suffix.lower() == ".tsv":
        prompts = list(_from_table(lines))
    else:
        prompts = [line for line in lines if not line.lstrip().startswith("#")]
    # a line break within a prompt would be a prompt's end in every file that lists them
    prompts = [" ".join(prompt.split()) for prompt in prompts]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise ValueError("it has no prompts")
    return prompts


def _from_objects(lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        prompt = row.get(FIELD) if isinstance(row, dict) else None
        if not isinstance(prompt, str):
            raise ValueError(f"its line {number} is no JSON object with a text in `{FIELD}`")
        yield prompt


def _from_table(lines: list[str]) -> Iterator[str]:
    try:
        head, *rows = csv.reader(lines, delimiter="\t")
        column = [name.strip().lower() for name in head].index(FIELD)
    # no line at all, no such column, or a field beyond csv's limit
    except (ValueError, csv.Error):
        raise ValueError("its first line names no column `Prompt`") from None
    for row in rows:
        # a row may leave out its last columns
        if len(row) > column:
            yield row[column]
