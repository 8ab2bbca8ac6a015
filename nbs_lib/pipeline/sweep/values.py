"""The swept values of a sweep, read from the command line or from Python.

train.rank=4,8,16                        values between commas
train.rank=[4, 8, 16]                    the same as a YAML list
train.seed=0..2                          whole numbers from 0 to 2
compare.seeds=[0, 1],[2, 3]              two values of a parameter that is a list
prepare.negative_prompt='blurry, ugly',plain    two texts, one of them with a comma
"""

import re
from collections.abc import Mapping
from typing import Any, get_origin, get_type_hints

from ...config import STAGES
from ...config.validation import ParameterError
from ..recipes import Overrides, is_text, read_yaml, split_override

# runs of a sweep: more were most likely a slip
MAX_MEMBERS = 1000
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
# a quote opens only at a value's beginning, so the apostrophe of "it's" is none
TEXT_VALUE = re.compile(r"""(?:^|,)\s*(?:(["'])(.*?)\1|([^,]*?))\s*(?=,|\Z)""", re.DOTALL)


def split_parameters(overrides: Overrides) -> tuple[dict, dict[str, list]]:
    """Return the parameters with one value, and those with several.

    Errors: ParameterError if no parameter has several values, or one is given twice.
    """
    fixed = {}
    swept = {}
    for name, values in _parse_all(overrides):
        if name in fixed or name in swept:
            raise ParameterError(f"sweep: {name} is given twice; give all its values at once")
        if len(values) == 1:
            fixed[name] = values[0]
        else:
            swept[name] = values
    # an empty list has no value to run
    if not swept or not all(swept.values()):
        allowed = "-p train.rank=4,8,16 or -p train.seed=0..2"
        raise ParameterError(f"sweep: no parameter has several values; allowed is {allowed}")
    return fixed, swept


def _parse_all(overrides: Overrides) -> list[tuple[str, list]]:
    if isinstance(overrides, Mapping):
        return [(name, _as_values(name, value)) for name, value in overrides.items()]
    return [parse_values(override) for override in overrides]


def parse_values(override: str) -> tuple[str, list]:
    """Return the name and the values of `STAGE.NAME=VALUES`. Errors: ParameterError."""
    stage, short_name, text = split_override(override)
    name = f"{stage}.{short_name}"
    # a range is no YAML, and `0..2` would be text
    if match := RANGE.fullmatch(text.strip()):
        return name, _parse_range(override, int(match[1]), int(match[2]))
    if not text.strip():
        return name, [text]
    if is_text(stage, short_name):
        texts = [match[2] or match[3] or "" for match in TEXT_VALUE.finditer(text)]
        # a single text is the value as it stands, with its quotes
        return name, texts if len(texts) > 1 else [text]
    values = read_yaml(f"[{text}]", f"-p {override}")
    # brackets around the values: one list, or for a parameter that is a list, a list of lists
    return name, _as_values(name, values[0]) if len(values) == 1 else values


def _parse_range(override: str, first: int, last: int) -> list[int]:
    if not first <= last < first + MAX_MEMBERS:
        allowed = f"FIRST..LAST, LAST not below FIRST, {MAX_MEMBERS} values at most"
        raise ParameterError(f"-p {override}: allowed is {allowed}")
    return list(range(first, last + 1))


def _as_values(name: str, value: Any) -> list:
    """Return the values that one Python or YAML value stands for."""
    if not isinstance(value, list | tuple | range):
        return [value]
    # a YAML list of an int parameter holds its values; of a list parameter it is one value
    values = list(value)
    single = _is_list(name) and not (values and isinstance(values[0], list))
    return [values] if single else values


def _is_list(full_name: str) -> bool:
    stage, name, _ = split_override(f"{full_name}=")
    return get_origin(get_type_hints(STAGES[stage]).get(name)) is list
