"""The page of the files of a run and of the cache, from the docstrings of their modules."""

from .markdown import docstring
from .source import module_docstring

HEAD = """# Formats

The files of a run and of the cache, as the modules that write them describe them, collected by
`python -m nbs_lib.reference`. JSON, YAML, Parquet, PNG and safetensors; no pickle. A half-written
file is never read: each is written beside its place and renamed.
"""
# all paragraphs of a docstring
WHOLE = slice(None)
# heading, the module that defines the format, and the paragraphs of its docstring that are about it
SECTIONS = (
    ("The folder of a run", "nbs_lib.run.run", WHOLE),
    ("The record, run.json", "nbs_lib.run.record", WHOLE),
    ("The lines of metrics.jsonl", "nbs_lib.train.monitor.metrics", WHOLE),
    ("The lines of usage.jsonl", "nbs_lib.train.monitor.usage", WHOLE),
    ("Checkpoints", "nbs_lib.train.checkpoint.checkpoint", WHOLE),
    # before it stands the map of the package
    ("The comparison", "nbs_lib.compare", slice(2, None)),
    # and here behind it
    ("Exports", "nbs_lib.export", slice(0, 3)),
    ("The cache", "nbs_lib.cache.format", WHOLE),
    ("The teacher's predictions in the cache", "nbs_lib.prepare.encode.teacher_cache", WHOLE),
)


def page() -> str:
    """Return the page, a section for each format."""
    parts = [HEAD.rstrip()]
    for title, module, part in SECTIONS:
        text = "\n\n".join(module_docstring(module).split("\n\n")[part])
        parts.append(f"## {title}\n\n{docstring(text)}")
        parts.append(f"Written by `{module}`.")
    return "\n\n".join(parts) + "\n"
