"""Commands about this machine: doctor, lab."""

from dataclasses import asdict
from typing import Annotated

import typer

from . import AsJson, app, echo, end, one_sentence, tell


@app.command()
def doctor(as_json: AsJson = False):
    """Look at this machine: what is wrong, and the command that mends it. Status 1 where something is."""
    from ..pipeline.doctor import examine

    found = []
    with one_sentence():
        for each in examine():
            found.append(each)
            if not as_json:
                mend = f"\n{'':8}mend it: {each.mend}" if each.mend else ""
                echo(f"{each.state:6}  {each.what}: {each.found}{mend}")
        if as_json:
            tell([asdict(each) for each in found], [], True)
        if wrong := [each.what for each in found if each.state == "wrong"]:
            end(f"wrong here: {', '.join(wrong)}", 1)


@app.command()
def lab(
    flags: Annotated[list[str] | None, typer.Argument(help="Flags for JupyterLab, after --, e.g. -- --no-browser.")] = None,
):
    """Open JupyterLab on the notebooks, on this machine only."""
    import os
    import sys

    from ..files import ROOT

    with one_sentence():
        os.chdir(ROOT)
        given = ["--ip=127.0.0.1", "--LabApp.default_url=/lab/tree/notebooks", *(flags or [])]
        os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *given])
