"""A base's repository and license, as far as its folder names them, and a model card's metadata.

Source: https://huggingface.co/docs/hub/model-cards.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from .checks.headers import SETTINGS_SIZE, FileError, check_file

# The end of a revision's path in the cache of huggingface_hub.
SNAPSHOT = re.compile(
    r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)/snapshots/(?P<revision>[0-9a-f]{40})"
)
ORIGIN = re.compile(r"(?P<hub_id>[\w.-]+/[\w.-]+)@[\w.-]+")
FRONT = re.compile(r"---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)  # the YAML before a card's text
CARD_FILE = "README.md"
LICENSE = ("license", "license_name", "license_link")
UNKNOWN_LICENSE = {"license": "unknown"}  # the hub's own word
MAX_FRONT_LENGTH = 100_000  # characters; PyYAML is slow
MAX_FIELD_LENGTH = 300


def snapshot_origin(folder: Path) -> str:
    """Return the hub id and revision of a folder in huggingface_hub's cache; "" for others."""
    match = SNAPSHOT.fullmatch("/".join(folder.parts[-3:]))
    return f"{match['owner']}/{match['name']}@{match['revision']}" if match else ""


def hub_id(origin: str) -> str:
    """Return the repository in an origin `OWNER/NAME@REVISION`; "" for any other origin."""
    match = ORIGIN.fullmatch(origin)
    return match["hub_id"] if match else ""


def license_of(folder: Path) -> dict[str, str]:
    """Return the license fields in a base's card; {} without a card or a license in it."""
    try:
        check_file(folder / CARD_FILE, SETTINGS_SIZE)
        front = FRONT.match((folder / CARD_FILE).read_text("utf-8"))
        if not front or len(front[1]) >= MAX_FRONT_LENGTH:
            return {}
        return plain_license(yaml.safe_load(front[1]))
    except (FileError, OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}


def plain_license(fields: Any) -> dict[str, str]:
    """Return the license fields that are short texts; {} if `license` is not among them."""
    if not isinstance(fields, dict):
        return {}
    plain = {name: fields[name] for name in LICENSE if _is_short_text(fields.get(name))}
    return plain if "license" in plain else {}


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= MAX_FIELD_LENGTH


def front_matter(
    metadata: dict[str, Any],
    tags: list[str],
    relation: str,
    more: dict[str, Any] | None = None,
) -> str:
    """Return the YAML of a card, between its lines of dashes.

    metadata: of the adapter or model
    relation: to its base, `adapter` or `finetune`
    more: further fields of the hub, by name
    """
    fields = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    # the base's license, because the weights derive from it, unless one was given for them
    license = metadata.get("license")
    fields |= {"license": license} if license else license_of_adapter(metadata)
    # only a repository: the hub would link the name of a folder to some repository of that name
    base = hub_id(metadata.get("base_origin", ""))
    if base:
        fields |= {"base_model": base, "base_model_relation": relation}
    fields |= {"tags": tags} | (more or {})
    # a value in JSON is also one in YAML, whatever characters it has
    lines = [f"{name}: {json.dumps(fields[name], ensure_ascii=False)}" for name in fields]
    return "\n".join(["---", *lines, "---"])


def license_of_adapter(metadata: dict[str, Any]) -> dict[str, str]:
    """Return the recorded license fields of the base; `unknown` if its files name no license."""
    return plain_license(metadata.get("base_license")) or UNKNOWN_LICENSE


def license_row(metadata: dict[str, Any]) -> str:
    """Return the license for a card's table."""
    if license := metadata.get("license"):
        return license
    fields = license_of_adapter(metadata)
    if fields == UNKNOWN_LICENSE:
        return "that of the base, whose files do not say it"
    return f"that of the base: {fields.get('license_name', fields['license'])}"
