"""Fields of the parameters' dataclasses: default, range, meaning and group of each, in one place.

    adapter = group("The LoRA")

    rank: int = adapter(16, "Rank of the LoRA.", ge=1, le=1024)

Everything that shows parameters reads them from `describe`: errors, the reference page, the
notebooks' comments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import Field

from .validation import value_type

NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


@dataclass(frozen=True)
class Parameter:
    """One field of a stage.

    default: the plain value, as in the field
    allowed: range or choices, in words
    meaning: sentences; the first one says what the parameter is
    group: title of the group that it belongs to
    objectives: the objectives of a training that use it; empty for all
    """

    name: str
    default: Any
    allowed: str
    meaning: str
    group: str
    objectives: tuple[str, ...] = ()

    @property
    def brief(self) -> str:
        """The first sentence of the meaning, without its full stop."""
        return self.meaning.partition(". ")[0].rstrip(".")


def group(title: str, *objectives: str) -> Callable[..., Any]:
    """Return the function that creates the fields of a group.

    objectives: those of a training that use these fields, if not all do
    """

    def parameter(default: Any, meaning: str, *, allowed: str = "", **limits: Any) -> Any:
        """Return a pydantic field.

        allowed: the allowed values in words, if type and limits do not say it
        limits: pydantic's ge, le, pattern, ...
        """
        if isinstance(default, list):
            # one list as the default would be shared by all configs
            limits["default_factory"] = lambda: list(default)
        else:
            limits["default"] = default
        extra = {"group": title, "allowed": allowed, "objectives": list(objectives)}
        return Field(description=meaning, json_schema_extra=extra, **limits)

    return parameter


def describe(cls: type) -> list[Parameter]:
    """Return the parameters of a stage's dataclass, in its order."""
    return [_parameter(name, field) for name, field in cls.__pydantic_fields__.items()]


def _parameter(name: str, field: Any) -> Parameter:
    extra = field.json_schema_extra
    default = field.get_default(call_default_factory=True)
    allowed = extra["allowed"] or _allowed(field)
    objectives = tuple(extra["objectives"])
    return Parameter(name, default, allowed, field.description, extra["group"], objectives)


def _allowed(field: Any) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        # an empty choice would not be seen in the list without its quotes
        return "one of " + ", ".join(str(choice) or "''" for choice in get_args(annotation))
    if value_type(annotation) is list:
        return "a list of " + PLURALS[get_args(annotation)[0]]
    words = NOUNS[annotation]
    for key, preposition in (("ge", "from"), ("le", "to")):
        # pydantic stores each limit as an object of its own type
        for limit in field.metadata:
            if hasattr(limit, key):
                words += f" {preposition} {format_number(getattr(limit, key))}"
    return words


def format_number(value: float) -> str:
    """Return a number for people: 10,000,000 and 1e-06."""
    # 12 digits: enough for every limit, and too few to show the rounding of a binary fraction
    return f"{value:,}" if isinstance(value, int) else f"{value:,.12g}"
