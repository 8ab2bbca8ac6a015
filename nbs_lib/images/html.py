"""HTML pages and tables from templates, and a policy that admits our own style and script only."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

# JupyterLab aligns cells to the right, which suits numbers alone, and keeps each on one line. Jinja
# escapes every value, so that no markup in a caption or a file name reaches the page.
TABLE = Environment(autoescape=True).from_string(
    """{% set style = "text-align:left;vertical-align:top;white-space:normal" -%}
<table>
{%- if note %}<caption style="text-align:left">{{ note }}</caption>{% endif %}
<thead><tr>
{%- for title in titles %}<th scope="col" style="{{ style }}">{{ title }}</th>{% endfor -%}
</tr></thead>
<tbody>
{%- for row in rows %}
<tr>{% for cell in row %}<td style="{{ style }}">{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table>"""
)


def csp_hash(text: str) -> str:
    """Return the name of an inline style or script in a content security policy.

    Source: W3C CSP level 3, section 2.3.1.
    """
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def template_environment(folder: Path) -> Environment:
    """Return the Jinja environment of a folder's templates."""
    # autoescape: prompts, names and errors come from outside
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        # a misspelt name must be an error, not an empty place in a report
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def inline(style: str, script: str) -> dict[str, Any]:
    """Return a page's `style` and `script` unescaped, and their `hashes` for its policy.

    Both must be files of ours: nothing that a person typed may be in them.
    """
    hashes = {"style": csp_hash(style), "script": csp_hash(script)}
    # not escaped: quotes and `<` are part of both languages
    return {"style": Markup(style), "script": Markup(script), "hashes": hashes}


def data_url(picture: bytes, kind: str = "png") -> str:
    """Return the bytes of a PNG or WebP file as a URL."""
    return f"data:image/{kind};base64,{b64encode(picture).decode()}"


def html_table(note: str, titles: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Return a table for a notebook; every cell is escaped, except for Markup.

    note: its caption, "" for none.
    """
    return TABLE.render(note=note, titles=titles, rows=rows)
