"""Hooks of MkDocs, named in mkdocs.yml: pages from outside docs/, links, and formulas.

A code host shows each page where it is; the site has all of them in one folder. The packages that
are imported here come with the extra `docs`.
"""

import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# by page of the repository, the page of the site
PAGES = {
    "README.md": "index.md",
    # MkDocs would take a README.md for the front page
    "docs/README.md": "contents.md",
    "benchmarks/README.md": "benchmarks.md",
    "nbs_lib/picturebook/base/README.md": "embedded-base.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
FORMULA = re.compile(r'<(div|span) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.S)


def on_files(files: Files, config) -> Files:
    """Add the pages from outside docs/."""
    files.remove(files.get_file_from_path("README.md"))
    for source, page in PAGES.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Lead the links of a page to the site's pages."""
    own = page.file.src_uri
    return LINK.sub(lambda match: site_link(match[0], own), markdown)


def on_page_content(content: str, **_) -> str:
    """Turn formulas into MathML, which browsers show by themselves: no script, no font."""
    return FORMULA.sub(_mathml, content)


def site_link(target: str, page: str) -> str:
    """Return a link of the site. target: as the repository has it. page: the site's, with it."""
    if "://" in target or target.startswith("#"):
        return target
    path, mark, anchor = target.partition("#")
    source = SOURCES.get(page, f"docs/{page}")
    linked = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    linked = PAGES.get(linked, linked.removeprefix("docs/"))
    return f"{posixpath.relpath(linked, posixpath.dirname(page) or '.')}{mark}{anchor}"


def _mathml(match: re.Match) -> str:
    formula = html.unescape(match[3]).strip()
    display = "block" if match[2] == "[" else "inline"
    # MathML stretches a fence by itself, and the converter knows \bigl before a single sign only
    mathml = convert(re.sub(r"\\big[lr](?=\\)", "", formula), display=display)
    # it copies what it does not know
    if "\\" in mathml:
        raise PluginError(f"a formula cannot be shown: {formula}")
    return mathml if display == "inline" else f'<div class="formula">{mathml}</div>'
