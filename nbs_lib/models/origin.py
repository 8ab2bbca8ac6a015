"""Where a base came from, for others: the hub's repository and the license, as far as its folder tells them."""

import re
from pathlib import Path
from typing import Any

import yaml

from .checks.headers import SETTINGS_SIZE, FileError, check_file

SNAPSHOT = re.compile(
    r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)/snapshots/(?P<revision>[0-9a-f]{40})"
)
"""The end of the place where huggingface_hub keeps a revision of a repository."""
ORIGIN = re.compile(r"(?P<hub_id>[\w.-]+/[\w.-]+)@[\w.-]+")
FRONT = re.compile(r"---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)
"""The YAML before a card's text."""
CARD = "README.md"
LICENSE = ("license", "license_name", "license_link")


def snapshot_origin(folder: Path) -> str:
    """Return hub id and revision of a folder in the cache of huggingface_hub; an empty text for any other folder."""
    found = SNAPSHOT.fullmatch("/".join(folder.parts[-3:]))
    return f"{found['owner']}/{found['name']}@{found['revision']}" if found else ""


def hub_id(origin: str) -> str:
    """Return the hub's repository in an origin, `OWNER/NAME@REVISION`; an empty text for a folder or the embedded base."""
    found = ORIGIN.fullmatch(origin)
    return found["hub_id"] if found else ""


def license_of(folder: Path) -> dict[str, str]:
    """Return what the card of a base says of its license, as it is; an empty dict where there is no card or it says nothing."""
    try:
        check_file(folder / CARD, SETTINGS_SIZE)
        front = FRONT.match((folder / CARD).read_text("utf-8"))
        told: Any = yaml.safe_load(front[1]) if front and len(front[1]) < 100_000 else None
    except (FileError, OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return plain_license(told)


def plain_license(told: Any) -> dict[str, str]:
    """Return the fields of a license that are short texts; an empty dict without a license among them."""
    fields = {name: told.get(name) for name in LICENSE} if isinstance(told, dict) else {}
    short = {
        name: value
        for name, value in fields.items()
        if isinstance(value, str) and value.strip() and len(value) <= 300
    }
    return short if "license" in short else {}
