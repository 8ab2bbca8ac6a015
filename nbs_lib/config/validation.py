"""Parameters as values: checked one by one, and read from YAML, the command line, papermill and a notebook's names.

`from_parameters` is the way in for values that arrive as text as often as not; a notebook gives what it was given
through `from_notebook`.
"""

import difflib
import json
import math
import os
import shlex
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar, get_args, get_origin

T = TypeVar("T")
PLAIN = (bool, int, float, str, list, dict, type(None))
"""What papermill can give a notebook."""
IPYTHON = ("In", "Out")
"""The plain values that IPython itself puts among a notebook's names, beside those with an underscore."""


COMMAND = "ONEPASS_COMMAND"
"""Environment variable of the kernels that a command starts, whose errors are read at the command line."""


class ParameterError(ValueError):
    """A parameter that cannot be used: its name, what was given, what is allowed."""


def setting(stage: str, name: str, value: Any) -> str:
    """How a parameter is given where this is read: on the command line, or in a notebook's parameters."""
    if os.environ.get(COMMAND):
        text = value if isinstance(value, str) else json.dumps(value)
        return f"-p {shlex.quote(f'{stage}.{name}={text}')}"
    return f"{name} = {value!r}"


def refuse(name: str, given: Any, allowed: str):
    shown = repr(given)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
    raise ParameterError(f"parameter {name}: given {shown}; allowed is {allowed}")


def between(config: Any, name: str, low: float, high: float):
    value = getattr(config, name)
    if not low <= value <= high:
        refuse(name, value, f"a number from {low:g} to {high:g}")


def one_of(config: Any, name: str, allowed: tuple):
    value = getattr(config, name)
    if value not in allowed:
        refuse(name, value, "one of " + ", ".join(str(each) or "''" for each in allowed))


def said(config: Any, name: str, what: str):
    if not getattr(config, name).strip():
        refuse(name, getattr(config, name), what)


def from_parameters(cls: type[T], given: dict[str, Any]) -> T:
    """A config from loosely typed values: `1e-4` and `true` mean what people mean, whatever typed them.

    Errors: ParameterError for an unknown name, a wrong type or a value out of range.
    """
    known = {f.name: f.type for f in fields(cls)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f". It has {', '.join(known)}."
            raise ParameterError(f"parameter {name}: {cls.__name__} has none of that name{hint}")
    return cls(**{name: _as_type(name, value, known[name]) for name, value in given.items()})


def from_notebook(cls: type[T], names: dict[str, Any]) -> T:
    """The config of a notebook from its `globals()`, which papermill writes unknown parameters into as well.

    Errors: ParameterError as of `from_parameters`; above the imports, any plain value is taken for a parameter.
    """
    given = {f.name: names[f.name] for f in fields(cls) if f.name in names}
    for name, value in names.items():  # in the order in which they were bound first
        if value is from_notebook:
            break  # from its imports on, a notebook's names are its own, also when a cell is run a second time
        if isinstance(value, PLAIN) and not name.startswith("_") and name not in IPYTHON:
            given[name] = value
    return from_parameters(cls, given)


def _as_type(name: str, value: Any, wanted: Any) -> Any:
    if get_origin(wanted) is list:
        if not isinstance(value, list | tuple):
            refuse(name, value, f"a list of {get_args(wanted)[0].__name__}")
        return [_as_type(name, item, get_args(wanted)[0]) for item in value]
    text = value.strip() if isinstance(value, str) else value
    try:
        if wanted is str and isinstance(value, str):
            value.encode()  # the bytes of a file's name that are no UTF-8 come as half characters, which nothing can keep
            return value
        if wanted is bool and str(text).lower() in ("true", "false"):
            return str(text).lower() == "true"
        if (
            wanted in (int, float)
            and not isinstance(value, bool)
            and isinstance(value, str | int | float)
        ):
            number = float(text)
            if wanted is float and math.isfinite(number):
                return number
            if wanted is int and number.is_integer():
                return (
                    int(text)
                    if isinstance(text, str) and text.lstrip("+-").isdigit()
                    else int(number)
                )
    except (ValueError, OverflowError):
        pass
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text, in whole characters of UTF-8",
    }
    return refuse(name, value, words[wanted])


def defaults(cls: type) -> dict[str, Any]:
    """Name and default of every parameter of a stage."""
    return {f.name: f.default_factory() if f.default is MISSING else f.default for f in fields(cls)}


def as_parameters(config: Any) -> dict[str, Any]:
    """A config as plain values, for papermill, YAML and the run's record."""
    return asdict(config)
