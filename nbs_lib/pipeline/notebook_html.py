"""An executed notebook as one HTML page, which shows its pictures to a reader who has neither Jupyter nor a network.

nbconvert's own page loads scripts from elsewhere; here its plain body stands in a page of ours, whose policy lets nothing
be loaded and no script run, whatever a notebook has printed.
"""

import html
import json
from pathlib import Path

from ..files import write_atomic
from ..untrusted_files import read_json

STYLE = """
:root { color-scheme: light dark; --soft: #8883; }
body { max-width: 1120px; margin: 0 auto; padding: 32px; font: 16px/1.6 system-ui, sans-serif; overflow-wrap: break-word; }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; margin: 0; }
.input, .output_stderr, .output_error { background: var(--soft); border-radius: 6px; padding: 8px 12px; margin: 12px 0; }
.prompt { display: none; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td, th { padding: 4px 10px; border-bottom: 1px solid var(--soft); text-align: left; }
.anchor-link { display: none; }
.output_html { overflow-x: auto; }
@media (max-width: 640px) {
  body { padding: 20px 16px; }
  .output_stream pre { white-space: pre; overflow-x: auto; }
}
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><link rel="icon" href="data:,"><style>{style}</style>
</head><body>{body}</body></html>
"""
LARGEST = 128 << 20
"""Bytes of an executed notebook, in which its pictures are."""
WIDGET = "application/vnd.jupyter.widget-view+json"


def write_page(notebook: Path) -> Path:
    """Write NOTEBOOK.html beside an executed notebook; the page. Errors: OSError; ValueError for a damaged notebook."""
    import nbformat
    from nbconvert import HTMLExporter

    read = nbformat.reads(json.dumps(drop_widgets(json.loads(notebook.read_bytes()))), as_version=4)
    exporter = HTMLExporter(template_name="basic", mathjax_url="", require_js_url="", jquery_url="")
    body, _ = exporter.from_notebook_node(read)
    page = notebook.with_suffix(".html")
    title = html.escape(f"{notebook.parent.name}: {notebook.stem}")
    write_atomic(page, PAGE.format(title=title, style=STYLE, body=body))
    return page


def drop_widgets(notebook: dict) -> dict:
    """The notebook without what only a live kernel can show, or its source as text; its pictures and pages stay."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET, None):
                data.pop("text/plain", None)
        if "outputs" in cell:
            cell["outputs"] = [each for each in cell["outputs"] if each.get("data") != {}]
    return notebook


def unfinished(notebook: Path) -> bool:
    """Whether a notebook is one that papermill began and did not end, or is torn."""
    try:
        told = read_json(notebook, LARGEST)["metadata"].get("papermill")
        return told is not None and (not told["end_time"] or bool(told["exception"]))
    except FileNotFoundError:
        return False  # the stage was done in JupyterLab
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def last_words(notebook: Path) -> str:
    """What the last cell of an executed notebook printed; "" where there is no such notebook."""
    try:
        cells = read_json(notebook, LARGEST)["cells"]
        outputs = next(reversed([cell["outputs"] for cell in cells if cell.get("outputs")]), [])
        return "".join(
            "".join(each["text"]) for each in outputs if each.get("name") == "stdout"
        ).rstrip()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
