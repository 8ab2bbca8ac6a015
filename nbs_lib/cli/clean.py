"""Commands that keep house: rm, gc, export, and the caches."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, DryRun, app, echo, print_result, report_errors


@app.command()
def rm(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs by name or pattern, e.g. 'demo-sweep*'."),
    ],
    dry_run: DryRun = False,
    as_json: AsJson = False,
):
    """Remove runs. Caches, which runs share, stay: see `onepass gc`."""
    from ..pipeline.runs.cleanup import remove_run

    with report_errors():
        gone = remove_run(runs, dry_run)
        verb = "would be removed" if dry_run else "removed"
        print_result(gone, [f"{verb}: {name}" for name in gone], as_json)


@app.command()
def gc(dry_run: DryRun = False, as_json: AsJson = False):
    """Remove what nothing needs: caches no run uses, finished trainings' checkpoints, what the killed or gone left."""
    from ..pipeline.runs.cleanup import gc as collect

    with report_errors():
        gone = collect(dry_run)
        verb = "would be removed" if dry_run else "removed"
        lines = [f"{each.bytes / 2**20:9.1f} MiB  {each.path}: {each.why}" for each in gone]
        total = sum(each.bytes for each in gone) / 2**20
        print_result(
            [asdict(each) for each in gone],
            [*lines, f"{len(gone)} {verb}, {total:.1f} MiB"],
            as_json,
        )


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run in outputs/, or its folder.")],
    to: Annotated[
        str, typer.Option(help="diffusers, kohya (A1111, ComfyUI) or merged (a whole pipeline).")
    ],
    out: Annotated[
        str,
        typer.Option(help="A folder of its own for the export; outputs/RUN/export/TO if left out."),
    ] = "",
):
    """Write a run's adapter for other programs, checked by drawing from it."""
    from ..export import ExportError
    from ..export import export as export_run
    from ..export.model_card import missed_sentences
    from ..models import BaseError
    from ..models.lora import METADATA_FILE

    with report_errors(ExportError, BaseError):
        folder = export_run(run, to, Path(out).absolute() if out else None)
        echo(f"export: {folder}")
        if to == "kohya":
            for line in missed_sentences(json.loads((folder / METADATA_FILE).read_text("utf-8"))):
                typer.echo(f"onepass: {line.replace('*', '').replace('`', '')}", err=True)


caches = typer.Typer(no_args_is_help=True, help="The caches of outputs/cache, which runs share.")
app.add_typer(caches, name="cache")


def _line(each) -> str:
    answers = f", answers about {each.answers}" if each.answers else ""
    what = each.fault or f"{each.examples} examples of {each.base}{answers}"
    runs = f"used by {', '.join(each.runs)}" if each.runs else "used by no run"
    return f"{each.key[:16]}  {each.bytes / 2**20:9.1f} MiB  {what}; {runs}"


@caches.command("list")
def list_caches(as_json: AsJson = False):
    """What there is, and which runs use it."""
    from ..files import ROOT
    from ..prepare.store.admin import stored_caches

    with report_errors():
        found = stored_caches(ROOT / "outputs" / "cache")
        print_result(
            [asdict(each) for each in found],
            [_line(each) for each in found] or ["no caches"],
            as_json,
        )


@caches.command("verify")
def verify_caches(as_json: AsJson = False):
    """Read every byte; what is damaged is named, and is built again by the next run that needs it."""
    from ..files import ROOT
    from ..prepare.store.admin import verify_caches

    with report_errors():
        found = verify_caches(ROOT / "outputs" / "cache")
        said = {
            key: f"{', '.join(wrong)}: missing or damaged" if wrong else "whole"
            for key, wrong in found.items()
        }
        lines = [f"{key[:16]}  {each}" for key, each in said.items()]
        print_result(
            [{"key": key, "damaged": wrong} for key, wrong in found.items()],
            lines or ["no caches"],
            as_json,
        )
        if any(found.values()):
            raise typer.Exit(1)


@caches.command("prune")
def prune_caches(dry_run: DryRun = False, as_json: AsJson = False):
    """Remove what no run uses: caches, and what builds that were cut off have left."""
    from ..files import ROOT
    from ..prepare.store.admin import prune_caches

    with report_errors():
        gone = prune_caches(ROOT / "outputs" / "cache", dry_run)
        total = sum(each.bytes for each in gone) / 2**20
        verb = "would be removed" if dry_run else "removed"
        print_result(
            [asdict(each) for each in gone],
            [*map(_line, gone), f"{len(gone)} {verb}, {total:.1f} MiB"],
            as_json,
        )
