"""Fields of the parameters' dataclasses: default, range, meaning and group of each, in one place.

    adapter = group("The LoRA")

    rank: int = adapter(16, "Rank of the LoRA.", ge=1, le=1024)

Everything that shows parameters reads them from `describe`: errors, the reference page, the notebooks' comments.
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

    default: as the field has it, a plain value.
    allowed: range or choices, in words.
    meaning: sentences; the first one says what the parameter is.
    group: title of the group that it belongs to.
    """

    name: str
    default: Any
    allowed: str
    meaning: str
    group: str

    @property
    def brief(self) -> str:
        """The first sentence of the meaning, without its full stop."""
        return self.meaning.partition(". ")[0].rstrip(".")


def group(title: str) -> Callable[..., Any]:
    """Return the function that makes the fields of a group."""

    def parameter(default: Any, meaning: str, *, allowed: str = "", **limits: Any) -> Any:
        """Return a pydantic field. allowed: what may be given, if its type and limits do not say it; limits: ge, le, …"""
        more = {"group": title, "allowed": allowed}
        if isinstance(default, list):
            return Field(
                default_factory=lambda: list(default),
                description=meaning,
                json_schema_extra=more,
                **limits,
            )
        return Field(default=default, description=meaning, json_schema_extra=more, **limits)

    return parameter


def describe(cls: type) -> list[Parameter]:
    """Return the parameters of a stage's dataclass, in its order."""
    return [_parameter(name, field) for name, field in cls.__pydantic_fields__.items()]


def _parameter(name: str, field: Any) -> Parameter:
    more = field.json_schema_extra
    allowed = more["allowed"] or _allowed(field)
    return Parameter(
        name,
        field.get_default(call_default_factory=True),
        allowed,
        field.description,
        more["group"],
    )


def _allowed(field: Any) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) or "''" for choice in get_args(annotation))
    if value_type(annotation) is list:
        return "a list of " + PLURALS[get_args(annotation)[0]]
    limits = {
        key: getattr(limit, key)
        for limit in field.metadata
        for key in ("ge", "le")
        if hasattr(limit, key)
    }
    words = NOUNS[annotation]
    words += f" from {shown_number(limits['ge'])}" if "ge" in limits else ""
    return words + (f" to {shown_number(limits['le'])}" if "le" in limits else "")


def shown_number(value: float) -> str:
    """Return a number for people: 10,000,000 and 1e-06."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.12g}"
