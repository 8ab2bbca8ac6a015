"""Commands of the project itself: init."""

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, app, print_result, report_errors

FOLDER_HELP = "The project's folder, new or not; files that are in it stay as they are."


@app.command()
def init(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help=FOLDER_HELP)],
    as_json: AsJson = False,
):
    """Write a project: notebooks, recipes and outputs/. An installed wheel needs one."""
    from ..pipeline.new_project import write_project

    with report_errors():
        project = write_project(Path(folder).expanduser().absolute())
        lines = [f"project: {project.folder}, {len(project.written)} files written"]
        if project.differing:
            remedy = "remove one, and give the command again, for that of this version"
            lines.append(f"kept, because they differ: {', '.join(project.differing)}; {remedy}")
        path = os.path.relpath(project.folder)
        # the working directory decides which project a command works in
        change = "" if path == "." else f"cd {shlex.quote(path)} && "
        lines.append(f"next: {change}onepass run demo, or onepass lab")
        print_result(asdict(project) | {"folder": str(project.folder)}, lines, as_json)
