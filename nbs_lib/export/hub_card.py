"""The card of a repository on the hub: its metadata, pictures and numbers, and how to sample."""

import json
from pathlib import Path

from ..config.validation import ParameterError
from ..files import PACKAGE
from ..models.origin import UNKNOWN_LICENSE, front_matter, hub_id, license_of_adapter
from ..models.sampling_recipe import usage_code, usage_text, warning
from ..project import EMBEDDED_BASES
from .model_card import card_rows, card_tags, kind_of_adapter

CARD = """{front}
# {name}

{warning}{kind} on `{base}`: {usage}.

{gallery}{code}

{guiders}

| | |
|---|---|
{rows}

{comparison}
"""
EMBEDDED = "`BASE` is the tiny Stable Diffusion that Onepass ships with, its folder `{folder}`."
GUIDERS = (
    "`guider/` is the same guidance for diffusers' modular pipelines: "
    '`ClassifierFreeGuidance.from_pretrained("{repository}", subfolder="guider")`.'
)
COMPARISON = (
    "[`report.html`](report.html) is the whole comparison on one page, to be downloaded; "
    "[`comparison/results.json`](comparison/results.json) has its numbers."
)
# pictures of a card; the hub shows them in one row
MAX_PICTURES = 12
LICENSE_MISSING = (
    "license: none given, and the base's files name none; the hub asks for one: "
    "--license openrail++ for example, an identifier of "
    "https://huggingface.co/docs/hub/repositories-licenses"
)


def with_license(facts: dict, license: str) -> dict:
    """Return the facts with a license. license: its identifier, "" for that of the base.

    Errors: ParameterError if the base's files name none either.
    """
    # the giver of a license may know more than the base's files
    if license:
        return facts | {"license": license}
    if license_of_adapter(facts) == UNKNOWN_LICENSE:
        raise ParameterError(LICENSE_MISSING)
    return facts


def hub_card(facts: dict, repository: str, pictures: list[dict], figures: list[str]) -> str:
    """Return README.md of a repository.

    facts: see `model_card.export_metadata`, with a license
    repository: OWNER/NAME
    pictures: the prompt of each, and its path in the repository, at most MAX_PICTURES
    figures: paths in the repository
    """
    # the hub shows these pictures above the card, and takes their prompts as examples
    widget = [
        {"text": picture["prompt"], "output": {"url": picture["path"]}} for picture in pictures
    ]
    # the repository's own id, so that the code can be copied
    code = usage_code(facts, repository, False)
    # nobody else has this base unless they have Onepass
    if not hub_id(facts.get("base_origin", "")) and facts["base"] in EMBEDDED_BASES:
        folder = EMBEDDED_BASES[facts["base"]].relative_to(PACKAGE.parent).as_posix()
        code += f"\n\n{EMBEDDED.format(folder=folder)}"
    comparison = ""
    # an adapter without a comparison has neither figures nor a report
    if facts["compared"]:
        images = [f"![{Path(path).stem} of the comparison]({path})" for path in figures]
        comparison = "\n\n".join([*images, COMPARISON])
    return CARD.format(
        **facts | {"usage": usage_text(facts)},
        front=front_matter(
            facts, card_tags(facts), "adapter", {"widget": widget} if widget else {}
        ),
        warning=warning(facts),
        kind=kind_of_adapter(facts),
        # the hub shows the pictures of the widget there
        gallery="<Gallery />\n\n" if widget else "",
        code=code,
        guiders=GUIDERS.format(repository=repository),
        rows="\n".join(f"| {name} | {value} |" for name, value in card_rows(facts)),
        comparison=comparison,
    )


def card_pictures(compare: Path, results: dict) -> list[dict]:
    """Return prompt and file of the tuned pictures of a comparison, one for each prompt.

    compare: the folder of the comparison
    results: of its results.json

    A file outside of the folder, which only a forged record has, is left out.
    """
    # by prompt: several seeds of one prompt would fill the row
    first = {}
    for picture in results["pictures"]:
        # resolved, because a link could lead out of the folder as well as a path
        file = (compare / picture["files"]["tuned"]).resolve()
        if file.is_relative_to(compare.resolve()) and file.is_file():
            first.setdefault(picture["prompt"], file)
    pictures = [{"prompt": prompt, "file": file} for prompt, file in first.items()]
    return pictures[:MAX_PICTURES]


def read_results(compare: Path) -> dict:
    """Return results.json of a comparison. Errors: OSError; ValueError."""
    return json.loads((compare / "results.json").read_text(encoding="utf-8"))
