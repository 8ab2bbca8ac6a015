"""YAML 1.2, read and written: `010` is 10, and `1:30`, `yes` and a date are text.

PyYAML implements YAML 1.1, where they are 8, 90, true and a date.
Source: YAML 1.2.2, section 10.3, the core schema.
"""

import math
import re
from typing import Any

import yaml

# by type: the pattern of its scalars without quotes, and the characters that they begin with
CORE = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
TAG = "tag:yaml.org,2002:"


class Loader(yaml.SafeLoader):
    """The core schema and merge keys. A key that stands twice in a mapping is an error."""

    # PyYAML's own tables hold YAML 1.1; add_implicit_resolver and add_constructor fill these
    yaml_implicit_resolvers: dict = {}
    yaml_constructors: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Return the mapping of a node. Errors: MarkedYAMLError for a key that stands twice."""
        keys = set()
        # checked on nodes: in the constructed dict the last of two equal keys has won already
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in keys:
                problem = f"{key.value} stands twice in one mapping"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)

    def scalar(self, node: yaml.Node) -> bool | int | float | None:
        """Return the value of a scalar of one of the `CORE` types."""
        kind = node.tag.rpartition(":")[2]
        text = self.construct_scalar(node)
        # an explicit tag, such as !!int, may stand before any text
        if not re.fullmatch(CORE[kind][0], text):
            problem = f"{text!r} is no {kind}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            # base 10 is explicit, because int(text, 0) refuses 010
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        # Python writes .inf and .nan without the dot
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


class Dumper(yaml.SafeDumper):
    """Writer that quotes texts which YAML 1.1 or 1.2 would read as another type.

    Any reader gets them back as text.
    """

    def ignore_aliases(self, data: Any) -> bool:
        # a list that stands twice would be written as `&id001` and `*id001`
        return True


for _kind, (_pattern, _first) in CORE.items():
    _regex = re.compile(f"(?:{_pattern})$")
    # an empty scalar is null, and PyYAML looks up its first character as ""
    _characters = [*_first, ""] if _kind == "null" else [*_first]
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(TAG + _kind, _regex, _characters)
    Loader.add_constructor(TAG + _kind, Loader.scalar)
Loader.add_implicit_resolver(TAG + "merge", re.compile("<<$"), ["<"])
for _kind in ("str", "seq", "map"):
    Loader.add_constructor(TAG + _kind, getattr(yaml.SafeLoader, f"construct_yaml_{_kind}"))
# None: every other tag, such as !!python/name, is an error
Loader.add_constructor(None, yaml.SafeLoader.construct_undefined)


def load(text: str) -> Any:
    """Return the value of a YAML text.

    Errors: yaml.YAMLError; ValueError for a number too long; RecursionError.
    """
    return yaml.load(text, Loader)


def dump(value: Any, inline: bool = False) -> str:
    """Return plain values as YAML. inline: on one line, without its end."""
    if not inline:
        # sort_keys: the order of parameters is that of their groups
        return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)
    text = yaml.dump(value, Dumper=Dumper, sort_keys=False, default_flow_style=True, width=math.inf)
    # PyYAML ends a document that is a bare scalar with `...`
    return text.removesuffix("\n").removesuffix("\n...")
