"""The metadata of a model card for the hub: YAML before the text.

Source: https://huggingface.co/docs/hub/model-cards.
"""

import json
from typing import Any

from .origin import hub_id, plain_license

UNKNOWN_LICENSE = {"license": "unknown"}  # the hub's own word


def front_matter(metadata: dict[str, Any], tags: list[str], relation: str) -> str:
    """Return the YAML of a card, between its lines of dashes.

    metadata: of the adapter or model
    relation: to its base, `adapter` or `finetune`
    """
    fields = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    # the base's license, because the weights derive from it
    fields |= license_of_adapter(metadata)
    # only a repository: the hub would link the name of a folder to some repository of that name
    base = hub_id(metadata.get("base_origin", ""))
    if base:
        fields |= {"base_model": base, "base_model_relation": relation}
    fields |= {"tags": tags}
    # a value in JSON is also one in YAML, whatever characters it has
    lines = [f"{name}: {json.dumps(fields[name], ensure_ascii=False)}" for name in fields]
    return "\n".join(["---", *lines, "---"])


def license_of_adapter(metadata: dict[str, Any]) -> dict[str, str]:
    """Return the recorded license fields of the base; `unknown` if its files name no license."""
    return plain_license(metadata.get("base_license")) or UNKNOWN_LICENSE


def license_row(metadata: dict[str, Any]) -> str:
    """Return the license for a card's table."""
    fields = license_of_adapter(metadata)
    if fields == UNKNOWN_LICENSE:
        return "that of the base, whose files do not say it"
    return f"that of the base: {fields.get('license_name', fields['license'])}"
