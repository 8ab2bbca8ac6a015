import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nbs_lib.config import Prepare


@pytest.fixture(scope="module", autouse=True)
def few_threads(one_thread):
    """Models this small gain nothing from more, and a busy machine loses much."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three captioned pictures, in a folder with spaces and letters beyond ASCII in its name."""
    path = tmp_path / "meine schönen Bilder 猫"
    path.mkdir()
    for name, colour in {"a": (200, 30, 30), "b": (30, 200, 30), "c": (30, 30, 200)}.items():
        Image.new("RGB", (80, 64), colour).save(path / f"{name}.png")
        (path / f"{name}.txt").write_text(f"a plain picture, {name}\n")
    return path


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> Callable[..., Prepare]:
    """The parameters of a run on `folder`, with changes."""

    def build(**changes) -> Prepare:
        return Prepare(
            **{
                "run": str(tmp_path / "outputs" / "run"),
                "source": str(folder),
                "max_examples": 0,
                "replace": True,
            }
            | changes
        )

    return build


@pytest.fixture
def metadata(folder: Path) -> Callable[..., None]:
    """Write lines of a metadata.jsonl into `folder`: objects, or text as it is."""

    def write(*lines: dict | str):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (folder / "metadata.jsonl").write_text(text)

    return write
