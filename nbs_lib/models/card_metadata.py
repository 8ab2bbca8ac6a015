"""The metadata of a model card, as the hub reads it: YAML before the text.

Source: https://huggingface.co/docs/hub/model-cards.
"""

import json
from typing import Any

from .origin import hub_id, plain_license

UNKNOWN_LICENSE = {"license": "unknown"}
"""The hub's own word for it."""


def front_matter(facts: dict[str, Any], tags: list[str], relation: str) -> str:
    """Return the metadata of a card, between its lines of dashes. relation: adapter or finetune, what it is of its base.

    The base is named where it is a repository of the hub: of the embedded base and of a folder, the hub would make a link to
    some repository of that name. The license is the base's, as far as it is known, because the weights derive from it.
    """
    base = hub_id(facts.get("base_origin", ""))
    fields = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    fields |= license_of_adapter(facts)
    if base:
        fields |= {"base_model": base, "base_model_relation": relation}
    # JSON's values are YAML's too, whatever is in a name
    lines = [
        f"{name}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in (fields | {"tags": tags}).items()
    ]
    return "\n".join(["---", *lines, "---"])


def license_of_adapter(facts: dict[str, Any]) -> dict[str, str]:
    """Return the license fields of the base as they were recorded; `unknown` where its files did not say them."""
    return plain_license(facts.get("base_license")) or UNKNOWN_LICENSE


def license_row(facts: dict[str, Any]) -> str:
    """Return what a card's table says of the license."""
    fields = license_of_adapter(facts)
    if fields == UNKNOWN_LICENSE:
        return "that of the base, whose files do not say it"
    return f"that of the base: {fields.get('license_name', fields['license'])}"
