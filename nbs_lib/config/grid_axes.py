"""The axes of a grid of pictures, parsed from text.

contender: guided | tuned | tuned at 0.5
steps: 5 | 10 | 25
prompt: A person holding a cat | A road that is going down a hill
"""

from dataclasses import dataclass
from typing import Any

from .contenders import SCHEDULERS, parse_contender

# what may vary, with the type of its values
NAMES = {
    "prompt": str,
    "seed": int,
    "steps": int,
    "w": float,
    "adapter_scale": float,
    "scheduler": str,
    "contender": str,
}
RANGES = {"seed": (0, 2**31 - 1), "steps": (1, 1000), "w": (1, 100), "adapter_scale": (-10, 10)}
# along one axis: a grid of three full axes is 1,728 pictures already
MAX_VALUES = 12


@dataclass(frozen=True)
class Axis:
    """One direction of a grid.

    name: one of NAMES
    values: one or more, each once
    """

    name: str
    values: tuple[Any, ...]

    def label(self, value: Any) -> str:
        """Return a value as the text beside its row or column."""
        if NAMES[self.name] is str:
            # the ending is the same in all of diffusers' schedulers, and takes room
            return str(value).removesuffix("Scheduler")
        return f"{'λ' if self.name == 'adapter_scale' else self.name} {value:g}"


def parse_axes(texts: list[str]) -> list[Axis]:
    """Return the axes of a grid: columns, rows and, if there are three, parts.

    An empty list has no axes.

    Errors: ValueError, in words.
    """
    if len(texts) not in (0, 2, 3):
        allowed = "two or three (columns, rows, parts), or none"
        raise ValueError(f"{len(texts)} axes; allowed are {allowed}")
    axes = [_parse_axis(text) for text in texts]
    if len({axis.name for axis in axes}) < len(axes):
        raise ValueError(f"the same axis twice in {texts}; give each once")
    return axes


def _parse_axis(text: str) -> Axis:
    # the first colon only: a prompt may have more
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not colon or name not in NAMES:
        allowed = f"NAME: VALUE | VALUE, NAME one of {', '.join(NAMES)}"
        raise ValueError(f"axis {text!r}; allowed is {allowed}")
    parts = [part.strip() for part in rest.split("|")]
    try:
        values = tuple(NAMES[name](part) for part in parts)
    except ValueError:
        noun = "whole numbers" if NAMES[name] is int else "numbers"
        raise ValueError(f"axis {text!r}: its values are to be {noun}") from None
    # the values, not the texts, are compared: 1 and 1.0 would be the same picture twice
    if not all(parts) or len(set(values)) < len(values) or len(values) > MAX_VALUES:
        allowed = f"1 to {MAX_VALUES} values, each once, between |"
        raise ValueError(f"axis {text!r}; allowed are {allowed}")
    for value in values:
        _check_value(name, value, text)
    return Axis(name, values)


def _check_value(name: str, value: Any, text: str):
    if name in RANGES:
        low, high = RANGES[name]
        # "not within": nan is a float, and neither below nor above a limit
        if not low <= value <= high:
            raise ValueError(f"axis {text!r}: {value:g}; allowed is {low:g} to {high:g}")
    if name == "contender":
        # its own error says more
        parse_contender(value)
    if name == "scheduler" and value not in SCHEDULERS:
        raise ValueError(f"axis {text!r}: {value}; allowed is one of {', '.join(SCHEDULERS)}")
