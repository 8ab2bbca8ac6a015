"""YAML 1.2, read and written: `010` is 10, and `1:30`, `yes` and a date are text.

PyYAML knows YAML 1.1, where they are 8, 90, true and a date. Source: YAML 1.2.2, section 10.3, the core schema.
"""

import math
import re
from typing import Any

import yaml

CORE = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""Of each type the scalars without quotes that are of it, and what they begin with."""


class Loader(yaml.SafeLoader):
    """The core schema and merge keys, without keys that stand twice, of which PyYAML's own loader takes the last."""

    yaml_implicit_resolvers: dict = {}
    yaml_constructors: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} stands twice in one mapping", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def scalar(self, node: yaml.Node) -> bool | int | float | None:
        """Return the value of a scalar of one of the `CORE` types."""
        kind, text = node.tag.rpartition(":")[2], self.construct_scalar(node)
        if not re.fullmatch(CORE[kind][0], text):
            raise yaml.MarkedYAMLError(
                problem=f"{text!r} is no {kind}", problem_mark=node.start_mark
            )
        plain = text.lower()
        if kind in ("null", "bool"):
            return None if kind == "null" else plain == "true"
        if kind == "int":
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        return float(plain.replace(".inf", "inf").replace(".nan", "nan"))


class Dumper(yaml.SafeDumper):
    """Puts in quotes whatever YAML 1.1 or 1.2 would not read as text, so that any reader gets it back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind, (_pattern, _first) in CORE.items():
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}",
            re.compile(f"(?:{_pattern})$"),
            [*_first, *([""] if _kind == "null" else [])],
        )
    Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", Loader.scalar)
Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("<<$"), ["<"])
for _kind in ("str", "seq", "map"):
    Loader.add_constructor(
        f"tag:yaml.org,2002:{_kind}", getattr(yaml.SafeLoader, f"construct_yaml_{_kind}")
    )
Loader.add_constructor(None, yaml.SafeLoader.construct_undefined)


def load(text: str) -> Any:
    """Return the value of a YAML text. Errors: yaml.YAMLError; ValueError for a number too long; RecursionError."""
    return yaml.load(text, Loader)


def dump(value: Any, inline: bool = False) -> str:
    """Return plain values as YAML. inline: on one line, without its end."""
    if not inline:
        return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)
    text = yaml.dump(value, Dumper=Dumper, sort_keys=False, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
