"""Docstrings and signatures, read from the source: importing it would load torch for minutes."""

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ..files import PACKAGE

LINE = 88  # characters of a signature; a longer one has an argument a line

Node = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Definition:
    """A public function, class, method or property.

    code: its signature, and the fields of a dataclass
    members: methods and properties of a class, in the order of its source
    """

    name: str
    code: str
    docstring: str
    members: list["Definition"] = field(default_factory=list)


def module_docstring(module: str) -> str:
    """Return the docstring of a module or package. module: its dotted name."""
    return ast.get_docstring(_parsed(module)) or ""


def definitions(module: str) -> list[Definition]:
    """Return the functions and classes that a module exports.

    These are the names of its `__all__`, or its own public ones if it has none. Constants are left
    out.
    """
    tree = _parsed(module)
    names = _all(tree)
    if names is None:
        names = [node.name for node in tree.body if isinstance(node, Node) and _public(node.name)]
    resolved = [_find(module, name) for name in names]
    return [_definition(*pair) for pair in resolved if pair is not None]


@cache  # a name is looked up through several modules
def _parsed(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text("utf-8"))


def _path(module: str) -> Path:
    base = PACKAGE.parent / module.replace(".", "/")
    package = base / "__init__.py"
    return package if package.is_file() else base.with_suffix(".py")


def _all(tree: ast.Module) -> list[str] | None:
    # not evaluated as code, because that would import the module
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def _public(name: str) -> bool:
    return not name.startswith("_")


def _is_member(node: ast.FunctionDef) -> bool:
    # a property's setter has the name of the property, which is there already
    return _public(node.name) and ".setter" not in _decorators(node)


def _find(module: str, name: str) -> tuple[str, Node] | None:
    """Return a name's module and node, through the imports that lead to it; None for a constant."""
    for node in _parsed(module).body:
        if isinstance(node, Node) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(_imported(module, node), alias.name)
    return None


def _imported(module: str, node: ast.ImportFrom) -> str:
    """Return the dotted name of the module that a relative import in `module` means."""
    parts = module.split(".")
    # one dot is the module's own package, which a package is itself
    up = node.level - (_path(module).name == "__init__.py")
    return ".".join([*parts[: len(parts) - up], node.module or ""]).rstrip(".")


def _definition(module: str, node: Node) -> Definition:
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        return Definition(node.name, _signature(node), text)
    lines = _path(module).read_text("utf-8").splitlines()
    members = []
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and _is_member(member):
            described = ast.get_docstring(member) or ""
            members.append(Definition(member.name, _signature(member), described))
    return Definition(node.name, _class_code(node, lines), text, members)


def _class_code(node: ast.ClassDef, lines: list[str]) -> str:
    """Return the call that creates an instance, or the fields of a dataclass with comments."""
    if "dataclass" in _decorators(node):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        own = [each for each in fields if "ClassVar" not in ast.unparse(each.annotation)]
        # from the source's lines, because the tree has no comments
        return "\n".join([f"class {node.name}:", *(lines[each.lineno - 1] for each in own)])
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return _signature(member, f"class {node.name}")
    bases = ", ".join(map(ast.unparse, node.bases))
    return f"class {node.name}({bases})" if bases else f"class {node.name}"


def _decorators(node: Node) -> str:
    return " ".join(map(ast.unparse, node.decorator_list))


def _signature(node: ast.FunctionDef, head: str = "") -> str:
    """Return a function's first line. head: words in place of `def` and its name."""
    decorators = _decorators(node)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    # it is read like a field
    if "property" in decorators:
        return f"{node.name}{returns}"
    head = head or f"def {node.name}"
    arguments = [text for text in _arguments(node.args) if text not in ("self", "cls")]
    line = f"{head}({', '.join(arguments)}){returns}"
    if len(line) <= LINE:
        return line
    return "\n".join([f"{head}(", *(f"    {text}," for text in arguments), f"){returns}"])


def _arguments(arguments: ast.arguments) -> list[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    # defaults belong to the last ones
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    texts = [_argument(*pair) for pair in zip(positional, defaults, strict=True)]
    if arguments.vararg:
        texts.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        texts.append("*")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    texts += [_argument(*pair) for pair in pairs]
    if arguments.kwarg:
        texts.append(f"**{_argument(arguments.kwarg, None)}")
    return texts


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation:
        text += f": {ast.unparse(argument.annotation)}"
    if default is not None:
        equals = " = " if argument.annotation else "="
        text += f"{equals}{ast.unparse(default)}"
    return text
