"""The page of the public Python API."""

from .markdown import block, docstring
from .source import Definition, definitions, module_docstring

# the packages that a script or a notebook may import from, in the order in which it needs them
MODULES = (
    "nbs_lib.pipeline",
    "nbs_lib.config",
    "nbs_lib.prepare",
    "nbs_lib.train",
    "nbs_lib.compare",
    "nbs_lib.export",
    "nbs_lib.run.run",
    "nbs_lib.models",
    "nbs_lib.picturebook.training",
    "nbs_lib.diffusion",
)
HEAD = """# The Python API

What a script or a notebook may import, with its docstrings, written by `python -m
nbs_lib.reference` from the source. Any other module may change without notice. A whole run in
Python:

```python
from nbs_lib.pipeline import run, sweep

quick = run("demo", {"train.steps": 50}, name="quick")
best = sweep("demo", {"train.rank": [4, 8, 16]}, jobs=2).best
```

A relative path is taken from the project's folder. The fields of the classes of `nbs_lib.config`
are the [parameters](parameters.md); an unknown name, a wrong type or a value out of range raises
`ParameterError`.
"""


def page() -> str:
    """Return the page, a section for each package."""
    parts = [HEAD.rstrip()]
    for module in MODULES:
        summary = module_docstring(module).partition("\n\n")[0]
        parts.append(f"## {module}\n\n{docstring(summary)}")
        for definition in definitions(module):
            parts += _describe(definition, "###", "")
    return "\n\n".join(parts) + "\n"


def _describe(definition: Definition, marks: str, owner: str) -> list[str]:
    """Return heading, signature and docstring. owner: the class of a member, and a dot."""
    parts = [f"{marks} {owner}{definition.name}", block(definition.code, "python")]
    if definition.docstring:
        parts.append(docstring(definition.docstring))
    for member in definition.members:
        parts += _describe(member, f"{marks}#", f"{definition.name}.")
    return parts
