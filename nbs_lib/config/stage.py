"""The base of the parameters' dataclasses: checked by pydantic, refused in one sentence."""

from functools import partial
from typing import Any

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from .fields import describe, group
from .tables import html_table, text_table
from .validation import ParameterError, as_parameters, invalid_name, invalid_value, reject

CHECKS = ConfigDict(
    # strict: text that means a number is converted before, in `from_parameters`
    strict=True,
    extra="forbid",
    allow_inf_nan=False,
    # commands that only list runs build no validator
    defer_build=True,
)
# decorator of a stage's dataclass
parameters = partial(dataclass, frozen=True, config=CHECKS)

# the group that every stage has, with the fields that several of them share
run_group = group("Run")


RUN = run_group(
    "outputs/notebook",
    "Folder of the run, relative to the project.",
    # a blank folder would be the project itself
    pattern=r"\S",
    allowed="a folder",
)
REPLACE = run_group(
    False,
    "Replacement of a finished stage that has other parameters. "
    "Without it such a stage is refused.",
)


class OneSentence(type):
    """Metaclass that raises ParameterError for the first wrong value; pydantic would list all."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except ValidationError as failure:
            error = failure.errors(include_url=False)[0]
        # outside of the handler: pydantic's error would be printed above this one as its context
        raise _refusal(cls, error)


class Stage(metaclass=OneSentence):
    """Parameters of one notebook, displayed there as tables and by `print` as text."""

    def _repr_html_(self) -> str:
        # not `defaults`: __post_init__ sets those that depend on others, such as learning_rate
        usual = as_parameters(type(self)())
        return html_table(describe(type(self)), as_parameters(self), usual)

    def __str__(self) -> str:
        usual = as_parameters(type(self)())
        return text_table(describe(type(self)), as_parameters(self), usual)


def defaults(cls: type) -> dict[str, Any]:
    """Return name and default of every parameter of a stage."""
    return {parameter.name: parameter.default for parameter in describe(cls)}


def check_range(config: Stage, name: str, low: float, high: float):
    """Raise ParameterError unless a value is within limits that depend on other parameters."""
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
    # __post_init__ refuses several parameters together, and pydantic wraps its error
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, ParameterError):
        return cause
    name = error["loc"][0] if error["loc"] else ""
    allowed = {parameter.name: parameter.allowed for parameter in describe(cls)}
    if name not in allowed:
        return invalid_name(cls, name)
    # half of a surrogate pair looks like text, so the reason must be named
    note = ", in whole characters of UTF-8" if error["type"] == "string_unicode" else ""
    return invalid_value(name, error["input"], allowed[name] + note)
