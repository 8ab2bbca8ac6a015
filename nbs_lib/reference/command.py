"""The page of the `onepass` command, read from its own application."""

from collections.abc import Iterator
from typing import Any

import typer

# from the package, whose import adds every command to the application
from ..cli import app as application
from .markdown import block, docstring, inline, table

HEAD = """# The command

`onepass` is on the path once the environment is activated. Without that, `.venv/bin/python -m
nbs_lib` does the same. This page is written by `python -m nbs_lib.reference` from the command's
own help; `onepass COMMAND --help` prints it.

The status is 0 for done, 1 for failed, 2 for wrong input, 130 for Ctrl-C and 143 for SIGTERM. An
error is one sentence on the standard error: what was given, what is allowed, what to do. `--json`
gives scripts what people read as text.
"""


def page() -> str:
    """Return the page, a section for each command."""
    parts = [HEAD.rstrip()]
    for name, command in _commands(typer.main.get_command(application.app), "onepass"):
        parts.append(f"## {name}\n\n{docstring(command.help or '')}")
        parts.append(block(_usage(name, command)))
        rows = [_cells(param) for param in command.params]
        if rows:
            parts.append(table(["argument or option", "default", "meaning"], rows))
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield full name and command, also of the groups inside."""
    for name, command in sorted(group.commands.items()):
        # a group by itself does nothing
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _usage(name: str, command: Any) -> str:
    words = [name]
    for param in command.params:
        if _is_argument(param):
            word = _argument_name(param)
            words.append(word if param.required else f"[{word}]")
        elif param.required:
            words.append(_option_name(param))
    if any(not _is_argument(param) and not param.required for param in command.params):
        words.append("[OPTIONS]")
    return " ".join(words)


def _is_argument(param: Any) -> bool:
    return param.param_type_name == "argument"


def _argument_name(param: Any) -> str:
    return param.metavar or param.name.upper()


def _option_name(param: Any) -> str:
    names = ", ".join(param.opts)
    if param.is_flag:
        return names
    return f"{names} {param.metavar or param.name.upper()}"


def _cells(param: Any) -> list[str]:
    name = _argument_name(param) if _is_argument(param) else _option_name(param)
    default = "required"
    if not param.required:
        # None, an empty text and False are all "not given"
        default = f"`{param.default}`" if param.default else ""
    return [f"`{name}`", default, inline(param.help or "")]
