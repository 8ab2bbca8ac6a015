"""An executed notebook as one HTML page, which needs neither Jupyter nor a network.

nbconvert's own page loads scripts from elsewhere. Here its plain body stands in a page of ours,
whose policy loads nothing and runs no script, whatever a notebook has printed.
"""

import html
import json
from functools import cache
from pathlib import Path
from typing import Any

from ..files import write_atomic
from ..untrusted_files import read_json

STYLE = """
:root { color-scheme: light dark; --soft: #8883; }
body { max-width: 1120px; margin: 0 auto; padding: 32px; overflow-wrap: break-word; }
body { font: 16px/1.6 system-ui, sans-serif; }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; margin: 0; }
.input, .output_stderr, .output_error { background: var(--soft); border-radius: 6px; }
.input, .output_stderr, .output_error { padding: 8px 12px; margin: 12px 0; }
.prompt { display: none; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; }
td, th { padding: 4px 10px; border-bottom: 1px solid var(--soft); text-align: left; }
.anchor-link { display: none; }
.output_html { overflow-x: auto; }
@media (max-width: 640px) {
  body { padding: 20px 16px; }
  .output_stream pre { white-space: pre; overflow-x: auto; }
}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<link rel="icon" href="data:,"><style>{style}</style>
</head><body>{body}</body></html>
"""
# bytes of an executed notebook, which holds its pictures
MAX_NOTEBOOK_SIZE = 128 << 20
WIDGET = "application/vnd.jupyter.widget-view+json"
# errors of reading a notebook that anybody may have changed
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


def write_page(notebook: Path) -> Path:
    """Write NOTEBOOK.html beside an executed notebook and return its path.

    Errors: OSError; ValueError for a damaged notebook.
    """
    import nbformat

    content = json.dumps(drop_widgets(json.loads(notebook.read_bytes())))
    body, _ = _exporter().from_notebook_node(nbformat.reads(content, as_version=4))
    page = notebook.with_suffix(".html")
    # a run's name may hold anything but a slash
    title = html.escape(f"{notebook.parent.name}: {notebook.stem}")
    write_atomic(page, PAGE.format(title=title, style=STYLE, body=body, policy=POLICY))
    return page


@cache
def _exporter() -> Any:
    """Return nbconvert's exporter, made once because it compiles its templates."""
    from nbconvert import HTMLExporter

    # the template "basic" is the body alone; the other options drop links to scripts elsewhere
    return HTMLExporter(template_name="basic", mathjax_url="", require_js_url="", jquery_url="")


def drop_widgets(notebook: dict) -> dict:
    """Remove from a notebook what only a live kernel can show; its pictures and HTML stay."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET, None):
                # the text of a widget is its repr, which says nothing to a reader
                data.pop("text/plain", None)
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if output.get("data") != {}]
    return notebook


def is_unfinished(notebook: Path) -> bool:
    """Return True if papermill began a notebook and did not end it, or the file is damaged."""
    try:
        metadata = read_json(notebook, MAX_NOTEBOOK_SIZE)["metadata"].get("papermill")
        return metadata is not None and (not metadata["end_time"] or bool(metadata["exception"]))
    except FileNotFoundError:
        # the stage was executed in JupyterLab
        return False
    except DAMAGE:
        return True


def last_output(notebook: Path) -> str:
    """Return what the last cell that printed something printed, "" without such a notebook."""
    try:
        cells = read_json(notebook, MAX_NOTEBOOK_SIZE)["cells"]
        outputs = [cell["outputs"] for cell in cells if cell.get("outputs")]
        last = outputs[-1] if outputs else []
        texts = ["".join(output["text"]) for output in last if output.get("name") == "stdout"]
        return "".join(texts).rstrip()
    except DAMAGE:
        return ""
