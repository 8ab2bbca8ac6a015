"""Values that JSON may hold and settings should not, and damaged files, for several fuzzers."""

import os
from pathlib import Path
from random import Random
from typing import Any

VALUES = (
    None, True, False, -1, 0, 1, 2, 3, 7, 64, 10**6, 10**9, 10**12, 10**18, 10**400, -(2**63),
    0.5, -0.5, 1e-30, 1e30, 1e308, float("nan"), float("inf"),
    "", "0", "1e999", "linear", "silu", "x" * 5000, "(a+)+$", ".*", "(.*.*)*x",
    "../../etc/passwd", "/dev/zero", "\ud800", "\0", "ü\u202e", "{}",
    [], {}, [[]], [None], [0], [1, 2], [10**9, 10**9], ["a", 1], {"a": {}},
    ["to_q"] * 2000, {"quant_method": "bitsandbytes"},
)  # fmt: skip


def value(rng: Random) -> Any:
    """One hostile value, seldom a nest of lists or a list of several."""
    if rng.random() < 0.02:
        nest: Any = 0
        for _ in range(rng.choice((50, 400))):
            nest = [nest] if rng.random() < 0.5 else {"a": nest}
        return nest
    if rng.random() < 0.1:
        return [rng.choice(VALUES) for _ in range(rng.choice((1, 2, 3)))]
    return rng.choice(VALUES)


def spoil(rng: Random, settings: dict[str, Any]):
    """Change one entry of settings: another value, a list's element, none at all, or one more."""
    name = rng.choice(
        [*settings, "more", "auto_map", "quantization_config", "_attn_implementation"]
    )
    held = settings.get(name)
    if isinstance(held, list) and held and rng.random() < 0.5:
        held = list(held)
        held[rng.randrange(len(held))] = value(rng)
        settings[name] = held
    elif rng.random() < 0.15:
        settings.pop(name, None)
    elif isinstance(held, int | float) and rng.random() < 0.3:
        settings[name] = held * rng.choice((-1, 0, 2, 0.5, 1000, 10**6))
    else:
        settings[name] = value(rng)


def put_no_file(rng: Random, path: Path):
    """Put something in the place of a file that is none that can be read."""
    path.unlink(missing_ok=True)
    match rng.randrange(5):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "absent", "/etc")))
        case 4:
            path.write_bytes(b"")
