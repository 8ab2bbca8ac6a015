"""Parameters as values: read from YAML, the command line, papermill and a notebook's names; refused in one sentence.

`from_parameters` is the way in for values that arrive as text as often as not; a notebook hands its names to
`from_notebook`. Types, ranges and choices are checked by the dataclasses themselves, see `stage`.
"""

import difflib
import json
import math
import os
import shlex
from dataclasses import asdict, fields
from typing import Any, Literal, TypeVar, get_args, get_origin

T = TypeVar("T")
PLAIN = (bool, int, float, str, list, dict, type(None))
"""What papermill can give a notebook."""
IPYTHON = ("In", "Out")
"""The plain values that IPython itself puts among a notebook's names, beside those with an underscore."""
LONGEST = 200
"""Characters of a value that an error shows."""
COMMAND = "ONEPASS_COMMAND"
"""Environment variable of the kernels that a command starts, whose errors are read at the command line."""


class ParameterError(ValueError):
    """A parameter that cannot be used: its name, what was given, what is allowed."""


def setting(stage: str, name: str, value: Any) -> str:
    """Return how a parameter is set where this is read: on the command line, or in a notebook's parameters."""
    if os.environ.get(COMMAND):
        text = value if isinstance(value, str) else json.dumps(value)
        return f"-p {shlex.quote(f'{stage}.{name}={text}')}"
    return f"{name} = {value!r}"


def reject(name: str, value: Any, allowed: str):
    """Raise ParameterError with the parameter's name, its value and what is allowed."""
    shown = repr(value)
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
    raise ParameterError(f"parameter {name}: given {shown}; allowed is {allowed}")


def reject_name(cls: type, name: Any):
    """Raise ParameterError for a name that no field of the dataclass has."""
    names = [field.name for field in fields(cls)]
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]}?" if near else f". It has {', '.join(names)}."
    raise ParameterError(f"parameter {name}: {cls.__name__} has none of that name{hint}")


def value_type(annotation: Any) -> type:
    """Return the plain type of a parameter: bool, int, float, str or list. annotation: one of these, or a Literal."""
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    return get_origin(annotation) or annotation


def from_parameters(cls: type[T], given: dict[str, Any]) -> T:
    """Return a config from loosely typed values: `1e-4` and `true` mean what people mean, whatever typed them.

    Errors: ParameterError for an unknown name, a wrong type or a value out of range.
    """
    annotations = {field.name: field.type for field in fields(cls)}
    for name in given:
        if name not in annotations:
            reject_name(cls, name)
    return cls(**{name: as_meant(value, annotations[name]) for name, value in given.items()})


def from_notebook(cls: type[T], names: dict[str, Any]) -> T:
    """Return the config of a notebook from its `globals()`, which papermill writes unknown parameters into as well.

    Any field of the dataclass may be among the names. Above the imports, any other plain value is taken for a parameter.
    Errors: ParameterError as of `from_parameters`.
    """
    given = {field.name: names[field.name] for field in fields(cls) if field.name in names}
    for name, value in names.items():  # in the order in which they were bound first
        if value is from_notebook:
            break  # from its imports on, a notebook's names are its own, also when a cell is run a second time
        if isinstance(value, PLAIN) and not name.startswith("_") and name not in IPYTHON:
            given[name] = value
    return from_parameters(cls, given)


def as_meant(value: Any, annotation: Any) -> Any:
    """Return a value as the type of its parameter, if it can mean one; else as it is, for the dataclass to refuse."""
    wanted = value_type(annotation)
    if wanted is list and isinstance(value, list | tuple):
        return [as_meant(item, get_args(annotation)[0]) for item in value]
    text = value.strip() if isinstance(value, str) else value
    if wanted is bool and str(text).lower() in ("true", "false"):
        return str(text).lower() == "true"
    if (
        wanted in (int, float)
        and isinstance(text, str | int | float)
        and not isinstance(text, bool)
    ):
        return _number(text, wanted, value)
    return value


def _number(text: str | int | float, wanted: type, value: Any) -> Any:
    try:
        number = float(text)
        if wanted is float and math.isfinite(number):
            return number
        if wanted is int and number.is_integer():
            return (
                int(text) if isinstance(text, str) and text.lstrip("+-").isdigit() else int(number)
            )
    except (ValueError, OverflowError):
        pass
    return value


def as_parameters(config: Any) -> dict[str, Any]:
    """Return a config as plain values, for papermill, YAML and the run's record."""
    return asdict(config)
