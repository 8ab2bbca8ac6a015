"""The axes of a grid of pictures: what varies along it, as words.

contender: guided | tuned | tuned at 0.5
steps: 5 | 10 | 25
prompt: A person holding a cat | A road that is going down a hill
"""

from dataclasses import dataclass
from typing import Any

from .contenders import SCHEDULERS, parse_contender

NAMES = {
    "prompt": str,
    "seed": int,
    "steps": int,
    "w": float,
    "adapter_scale": float,
    "scheduler": str,
    "contender": str,
}
"""What may vary, and of which type it is."""
RANGES = {"seed": (0, 2**31 - 1), "steps": (1, 1000), "w": (1, 100), "adapter_scale": (-10, 10)}
MAX_VALUES = 12
"""Values along one axis."""


@dataclass(frozen=True)
class Axis:
    """name: of NAMES; values: one or more, each once."""

    name: str
    values: tuple[Any, ...]

    def label(self, value: Any) -> str:
        """A value as it stands beside its row or column."""
        if self.name in ("prompt", "contender", "scheduler"):
            return str(value).removesuffix("Scheduler")
        return f"{'λ' if self.name == 'adapter_scale' else self.name} {value:g}"


def parse_axes(given: list[str]) -> list[Axis]:
    """The axes of a grid: columns, rows, and, of three, its parts; none for an empty list. Errors: ValueError, in words."""
    if len(given) not in (0, 2, 3):
        raise ValueError(
            f"{len(given)} axes; allowed are two or three (columns, rows, parts), or none"
        )
    found = [_axis(each) for each in given]
    if len({each.name for each in found}) < len(found):
        raise ValueError(f"the same axis twice in {given}; give each once")
    return found


def _axis(text: str) -> Axis:
    name, colon, values = text.partition(":")
    if not colon or name.strip() not in NAMES:
        raise ValueError(
            f"axis {text!r}; allowed is NAME: VALUE | VALUE, NAME one of {', '.join(NAMES)}"
        )
    name, parts = name.strip(), [each.strip() for each in values.split("|")]
    try:
        found = tuple(NAMES[name](each) for each in parts)
    except ValueError:
        raise ValueError(
            f"axis {text!r}: its values are to be {'whole ' * (NAMES[name] is int)}numbers"
        ) from None
    if not all(parts) or len(set(found)) < len(found) or len(found) > MAX_VALUES:
        raise ValueError(
            f"axis {text!r}; allowed are 1 to {MAX_VALUES} values, each once, between |"
        )
    for value in found:
        low, high = RANGES.get(name, (None, None))
        if low is not None and not low <= value <= high:
            raise ValueError(f"axis {text!r}: {value:g}; allowed is {low:g} to {high:g}")
        if name == "contender":
            parse_contender(value)
        if name == "scheduler" and value not in SCHEDULERS:
            raise ValueError(f"axis {text!r}: {value}; allowed is one of {', '.join(SCHEDULERS)}")
    return Axis(name, found)
