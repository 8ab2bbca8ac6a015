"""The base of the parameters' dataclasses: checked by pydantic, refused in one sentence, shown as a table."""

from functools import partial
from typing import Any

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from .fields import Parameter, describe
from .tables import html_table, text_table
from .validation import ParameterError, as_parameters, reject, reject_name

CHECKS = ConfigDict(
    strict=True,  # text that means a number is read before, in `from_parameters`
    extra="forbid",
    allow_inf_nan=False,
    defer_build=True,  # commands that only list runs build no validator
)
parameters = partial(dataclass, frozen=True, config=CHECKS)
"""Decorator of a stage's dataclass."""


class OneSentence(type):
    """Raises ParameterError, with the first thing that is wrong, where pydantic lists all."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except ValidationError as wrong:
            error = wrong.errors(include_url=False)[0]
        raise _refusal(cls, error)


class Stage(metaclass=OneSentence):
    """Parameters of one notebook. In a notebook they show themselves as a table, and `print` does so in text."""

    def _repr_html_(self) -> str:
        return html_table(describe(type(self)), as_parameters(self), as_parameters(type(self)()))

    def __str__(self) -> str:
        return text_table(describe(type(self)), as_parameters(self), as_parameters(type(self)()))


def defaults(cls: type) -> dict[str, Any]:
    """Return name and default of every parameter of a stage."""
    return {parameter.name: parameter.default for parameter in describe(cls)}


def check_range(config: Stage, name: str, low: float, high: float):
    """Raise ParameterError unless a value is between two numbers, of which at least one depends on other parameters."""
    value = getattr(config, name)
    if not low <= value <= high:
        noun = "a whole number" if isinstance(value, int) else "a number"
        reject(name, value, f"{noun} from {low:g} to {high:g}")


def check_texts(config: Stage, name: str, allowed: str):
    """Raise ParameterError if one of a list of texts is empty."""
    value = getattr(config, name)
    if not all(text.strip() for text in value):
        reject(name, value, allowed)


def _refusal(cls: type, error: dict[str, Any]) -> ParameterError:
    """Return pydantic's error as one sentence."""
    if isinstance(cause := error.get("ctx", {}).get("error"), ParameterError):
        return cause  # of several parameters together, in __post_init__
    name = error["loc"][0] if error["loc"] else ""
    by_name: dict[str, Parameter] = {parameter.name: parameter for parameter in describe(cls)}
    try:
        if name not in by_name:
            reject_name(cls, name)
        allowed = by_name[name].allowed
        if error["type"] == "string_unicode":
            allowed += ", in whole characters of UTF-8"
        reject(name, error["input"], allowed)
    except ParameterError as refused:
        return refused
