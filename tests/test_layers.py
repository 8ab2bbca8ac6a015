"""Imports point one way: a layer of nbs_lib knows those before it, and the rooms behind the notebooks not one another."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    {
        "axes",
        "config",
        "contenders",
        "course",
        "disk",
        "files",
        "inputs",
        "locks",
        "machine",
        "outdated",
        "parameters",
        "policy",
        "reading",
    }
    | {"records", "run", "terminal", "yaml12"},
    {"adapter", "adapter_file", "bars", "cards", "compiling", "diffusion", "libraries", "models", "picturebook", "programs"}
    | {"shards", "usage"},
    {"prepare", "train", "compare"},
    {"export", "pipeline"},
    {"commands"},
    {"__main__"},
]
NOTEBOOK_ROOMS = LAYERS[2]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "deepspeed"}


def imports_of(file: Path, root: Path) -> Iterator[str]:
    """Absolute dotted names of all a file imports, at any level: `from ..run import Run` gives nbs_lib.run.run.Run."""
    package = file.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def edges_of(root: Path) -> dict[tuple[str, str], set[str]]:
    """(room, imported .room or foreign package) -> the files where it happens; room "" is nbs_lib/__init__.py."""
    edges = {}
    for file in sorted((root / "nbs_lib").rglob("*.py")):
        parts = file.relative_to(root / "nbs_lib").with_suffix("").parts
        room = "" if parts == ("__init__",) else parts[0]
        for name in imports_of(file, root):
            top, _, rest = name.partition(".")
            target = f".{rest.partition('.')[0]}" if top == "nbs_lib" else top
            if target != f".{room}":
                edges.setdefault((room, target), set()).add(str(file.relative_to(root)))
    return edges


def violations(edges: dict[tuple[str, str], set[str]]) -> list[str]:
    """One line for each import that points the wrong way."""
    found = []
    for (room, target), files in edges.items():
        inner = target.removeprefix(".")
        if not target.startswith("."):
            wrong = LEVEL.get(room) == 0 and target in HEAVY
        elif inner not in LEVEL or room not in LEVEL:
            wrong = inner in LEVEL  # nbs_lib/__init__.py imports no room; a plain `nbs_lib` or its __version__ is no room
        else:
            wrong = LEVEL[inner] > LEVEL[room] or {room, inner} <= NOTEBOOK_ROOMS
        if wrong:
            found.append(f"{room or 'nbs_lib'} must not import {inner} ({', '.join(sorted(files))})")
    return found


def test_imports_point_one_way():
    edges = edges_of(ROOT)
    assert ("run", ".config") in edges and ("models", ".files") in edges and ("prepare", ".picturebook") in edges
    assert ("models", "torch") in edges
    assert violations(edges) == []


def test_every_module_belongs_to_a_layer():
    here = {path.stem for path in (ROOT / "nbs_lib").glob("*.py")} - {"__init__"}
    here |= {path.name for path in (ROOT / "nbs_lib").iterdir() if any(path.glob("*.py"))}
    assert {"config", "run", "models", "adapter", "diffusion", "picturebook", "prepare"} <= here
    assert here <= set(LEVEL)


@pytest.mark.parametrize(
    ("file", "line", "refused"),
    [
        ("models/find.py", "from ..train import loop", True),
        ("models/sd.py", "def f():\n    from nbs_lib import pipeline", True),
        ("compare/report.py", "from ..prepare.images import decode", True),
        ("compare/report.py", "import nbs_lib.train.loop", True),
        ("picturebook/make/fit.py", "from ... import compare", True),
        ("__init__.py", "from .run import Run", True),
        ("run.py", "def f():\n    import torch.nn", True),
        ("config/train.py", "from transformers import CLIPModel", True),
        ("run.py", "from .config import Train", False),
        ("compare/report.py", "from . import figures", False),
        ("compare/report.py", "from ..picturebook import draw", False),
        ("picturebook/make/fit.py", "from ..captions import Scene", False),
        ("train/loop.py", "import torch", False),
        ("pipeline/verify.py", "from ..compare import report", False),
        ("export/card.py", "from ..compare.metrics import psnr", False),
        ("compare/report.py", "from ..export import card", True),
    ],
)
def test_a_wrong_import_is_seen(tmp_path, file, line, refused):
    path = tmp_path / "nbs_lib" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert bool(violations(edges_of(tmp_path))) == refused


def test_importing_the_library_loads_no_torch_and_touches_nothing():
    code = f"""
import os, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("the network was touched")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
before = dict(os.environ)
import nbs_lib
import nbs_lib.config, nbs_lib.run.run
assert dict(os.environ) == before, "the environment was changed"
assert not {HEAVY!r} & set(sys.modules), sorted({HEAVY!r} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
