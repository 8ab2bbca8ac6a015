"""Commands that share a run with others: push, space."""

import shlex
from dataclasses import asdict
from typing import Annotated

import typer

from .app import AsJson, RunName, app, print_result, report_errors

TO_HELP = "OWNER/NAME of the repository on the hub; it is created if there is none."
LICENSE_HELP = "Identifier of the adapter's license, e.g. openrail++; that of the base if left out."
DRY_RUN_HELP = "Write the repository's folder, and upload nothing."
KIB = 2**10


@app.command()
def push(
    run: RunName,
    to: Annotated[str, typer.Option(metavar="OWNER/NAME", help=TO_HELP)],
    license: Annotated[str, typer.Option(help=LICENSE_HELP)] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help=DRY_RUN_HELP)] = False,
    as_json: AsJson = False,
):
    """Put a run on the hub: adapter, card, pictures, comparison and report, in one commit."""
    from ..export import ExportError
    from ..export.hub import HubError
    from ..export.hub import push as push_run
    from ..models import BaseError

    with report_errors(ExportError, BaseError, HubError):
        pushed = push_run(run, to, license, dry_run)
        lines = [f"{size / KIB:9.1f} KiB  {path}" for path, size in pushed.files.items()]
        if pushed.remark:
            lines.append(f"note: {pushed.remark}")
        lines.append(f"pushed: {pushed.url}" if pushed.url else f"not uploaded: {pushed.folder}")
        print_result(asdict(pushed) | {"folder": str(pushed.folder)}, lines, as_json)


@app.command()
def space(run: RunName, as_json: AsJson = False):
    """Write a page of a run to share: a Gradio app, base and adapter side by side."""
    from ..export import ExportError
    from ..export.space import write_space
    from ..models import BaseError

    with report_errors(ExportError, BaseError):
        folder = write_space(run)
        lines = [
            f"space: {folder}",
            "try it: pip install -r requirements.txt in an environment of its own; python app.py",
            f"share it: hf upload OWNER/NAME {shlex.quote(str(folder))} . --repo-type space",
        ]
        print_result({"folder": str(folder)}, lines, as_json)
