"""Parameters as values: read from YAML, the command line, papermill and a notebook's names.

`from_parameters` converts values that may arrive as text; a notebook passes its names to
`from_notebook`. The dataclasses themselves check types, ranges and choices, see `stage`. Each
error is one sentence.
"""

import difflib
import json
import math
import os
import shlex
from dataclasses import asdict, fields
from typing import Any, Literal, TypeVar, get_args, get_origin

T = TypeVar("T")
# the types that papermill can pass to a notebook
PLAIN = (bool, int, float, str, list, dict, type(None))
# plain values that IPython itself puts among a notebook's names, beside those with an underscore
IPYTHON = ("In", "Out")
# characters of a value that an error shows: a list of prompts may have thousands
LONGEST = 200
# environment variable of the kernels that a command starts: their errors are read at the command
# line, where a parameter is set in another form than in a notebook
COMMAND = "ONEPASS_COMMAND"


class ParameterError(ValueError):
    """A parameter that cannot be used: its name, the given value and the allowed ones.

    name: the parameter, if the problem does not name it; put before the problem.
    """

    def __init__(self, problem: str, name: Any = None):
        # only the problem is an argument: the error is pickled, and `name` travels in its __dict__
        super().__init__(problem)
        self.name = name

    def __str__(self) -> str:
        problem = super().__str__()
        return problem if self.name is None else f"parameter {self.name}: {problem}"


def setting(stage: str, name: str, value: Any) -> str:
    """Return how to set a parameter: at the command line, or in a notebook's parameters."""
    if os.environ.get(COMMAND):
        text = value if isinstance(value, str) else json.dumps(value)
        # people paste the line into a shell
        return f"-p {shlex.quote(f'{stage}.{name}={text}')}"
    return f"{name} = {value!r}"


def invalid_value(name: str, value: Any, allowed: str) -> ParameterError:
    """Return the error for a value: the parameter's name, the value and the allowed ones."""
    text = repr(value)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}…"
    return ParameterError(f"given {text}; allowed is {allowed}", name)


def invalid_name(cls: type, name: Any) -> ParameterError:
    """Return the error for a name that no field of the dataclass has."""
    names = [field.name for field in fields(cls)]
    # str: a key of a YAML mapping may be a number
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]}?" if near else f". It has {', '.join(names)}."
    return ParameterError(f"{cls.__name__} has none of that name{hint}", name)


def reject(name: str, value: Any, allowed: str):
    """Raise the ParameterError of `invalid_value`."""
    raise invalid_value(name, value, allowed)


def value_type(annotation: Any) -> type:
    """Return the plain type of a parameter: bool, int, float, str or list.

    annotation: one of these, or a Literal.
    """
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    return get_origin(annotation) or annotation


def from_parameters(cls: type[T], values: dict[str, Any], prefix: str = "") -> T:
    """Return a config from loosely typed values, such as the texts `1e-4` and `true`.

    prefix: text before the parameter's name in an error, such as "train."

    Errors: ParameterError for an unknown name, a wrong type or a value out of range.
    """
    annotations = {field.name: field.type for field in fields(cls)}
    try:
        for name in values:
            # before the values: a misspelt name is the likelier mistake, and has a better hint
            if name not in annotations:
                raise invalid_name(cls, name)
        return cls(**{name: convert(value, annotations[name]) for name, value in values.items()})
    except ParameterError as failure:
        # two stages may have a parameter of the same name
        failure.name = f"{prefix}{failure.name}"
        raise


def from_notebook(cls: type[T], names: dict[str, Any]) -> T:
    """Return the config of a notebook from its `globals()`, where papermill writes parameters.

    Any field of the dataclass may be among the names. Above the imports, any other plain value
    counts as a parameter, so that a misspelt name is refused.

    Errors: ParameterError, as in `from_parameters`.
    """
    values = {field.name: names[field.name] for field in fields(cls) if field.name in names}
    # a dict keeps the order in which names were bound first
    for name, value in names.items():
        if value is from_notebook:
            # the names after a notebook's imports are its results, if a cell is executed again
            break
        if isinstance(value, PLAIN) and not name.startswith("_") and name not in IPYTHON:
            values[name] = value
    return from_parameters(cls, values)


def convert(value: Any, annotation: Any) -> Any:
    """Return a value as the type of its parameter.

    A value that cannot be converted is returned unchanged: the dataclass refuses it.
    """
    kind = value_type(annotation)
    if kind is list and isinstance(value, list | tuple):
        return [convert(item, get_args(annotation)[0]) for item in value]
    text = value.strip() if isinstance(value, str) else value
    if kind is bool and str(text).lower() in ("true", "false"):
        return str(text).lower() == "true"
    # bool is an int in Python, but `steps: true` is a mistake
    numeric = isinstance(text, str | int | float) and not isinstance(text, bool)
    if kind in (int, float) and numeric:
        number = _number(text, kind)
        return value if number is None else number
    return value


def _number(text: str | int | float, kind: type) -> int | float | None:
    try:
        number = float(text)
        if kind is float:
            return number if math.isfinite(number) else None
        if not number.is_integer():
            return None
        # the digits themselves: a float holds whole numbers up to 2**53 only
        return int(text) if isinstance(text, str) and text.lstrip("+-").isdigit() else int(number)
    except (ValueError, OverflowError):
        # OverflowError: an int too large for a float
        return None


def as_parameters(config: Any) -> dict[str, Any]:
    """Return a config as plain values, for papermill, YAML and the run's record."""
    return asdict(config)
