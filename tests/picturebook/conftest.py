import json
from pathlib import Path

import pytest

from nbs_lib.picturebook.training.pictures.icons import (
    PACKAGES,
    TRAINED_STYLES,
    UNSEEN_STYLE,
    WORD_LIST,
    IconPackages,
)

# Code points as emojibase and the icons write them, which differ in U+FE0F.
ANNOTATIONS = [
    {"hexcode": "1F428", "label": "koala", "tags": ["animal", "bear"], "group": 3},
    {"hexcode": "2600", "label": "sun", "tags": ["bright"], "group": 4},
    {"hexcode": "1FAD6", "label": "teapot", "tags": ["drink", "pot", "tea"], "group": 4},
    {"hexcode": "1F1EC", "label": "regional indicator G", "tags": []},
]
CHARS = {"1f428": "koala", "2600-fe0f": "sun", "1fad6": "teapot"}
# A quarter of the drawing, so that the rest of the picture is clear.
BODIES = {
    "koala": '<path fill="#f00" d="M0 0h18v18H0z"/>',
    "sun": '<circle cx="18" cy="18" r="9" fill="#fc0"/>',
    "teapot": '<path fill="#00f" d="M18 18h18v18H18z"/>',
}


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> IconPackages:
    """The npm packages in their real layout, with three icons in each style."""
    folder = tmp_path_factory.mktemp("my ícons")
    modules = folder / "node_modules"
    for name, version in PACKAGES.items():
        write(modules / name / "package.json", {"version": version, "license": f"of {name}"})
    icons = {"icons": {name: {"body": body} for name, body in BODIES.items()}}
    for style in (*TRAINED_STYLES, UNSEEN_STYLE):
        style_folder = modules / "@iconify-json" / style
        write(style_folder / "chars.json", CHARS)
        write(style_folder / "icons.json", icons | {"width": 36, "height": 36})
    write(modules / "emojibase-data/en/data.json", ANNOTATIONS)
    words = modules / WORD_LIST
    words.parent.mkdir(parents=True)
    words.write_text("the\nof\nkitchen\ntable\nwooden\n")
    return IconPackages(folder)


def write(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
