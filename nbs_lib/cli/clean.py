"""Commands that remove, export and check: rm, gc, export, cache."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import AsJson, DryRun, app, echo, print_result, report_errors

MIB = 2**20
RUNS_HELP = "Runs by name or pattern, e.g. 'demo-sweep*'."
TO_HELP = "diffusers, kohya (A1111, ComfyUI) or merged (a whole pipeline)."
OUT_HELP = "A folder of its own for the export; outputs/RUN/export/TO if left out."


@app.command()
def rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help=RUNS_HELP)],
    dry_run: DryRun = False,
    as_json: AsJson = False,
):
    """Remove runs. Caches, which runs share, stay: see `onepass gc`."""
    from ..pipeline.runs.cleanup import remove_run

    with report_errors():
        names = remove_run(runs, dry_run)
        print_result(names, [f"{_verb(dry_run)}: {name}" for name in names], as_json)


@app.command()
def gc(dry_run: DryRun = False, as_json: AsJson = False):
    """Remove unused caches, checkpoints of finished trainings, and files of killed processes."""
    from ..pipeline.runs.cleanup import gc as collect

    with report_errors():
        removed = collect(dry_run)
        # as wide as a TiB, so that the paths stand in one column
        lines = [f"{item.bytes / MIB:9.1f} MiB  {item.path}: {item.why}" for item in removed]
        _print_removed(removed, lines, dry_run, as_json)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run in outputs/, or its folder.")],
    to: Annotated[str, typer.Option(help=TO_HELP)],
    out: Annotated[str, typer.Option(help=OUT_HELP)] = "",
):
    """Write a run's adapter for other programs, checked by pictures drawn from it."""
    from ..export import ExportError
    from ..export import export as export_run
    from ..export.model_card import missing_layer_warnings
    from ..models import BaseError
    from ..models.lora.metadata import METADATA_FILE

    with report_errors(ExportError, BaseError):
        # relative to where the command is given, not to the project
        folder = export_run(run, to, Path(out).absolute() if out else None)
        echo(f"export: {folder}")
        if to == "kohya":
            metadata = json.loads((folder / METADATA_FILE).read_text("utf-8"))
            for line in missing_layer_warnings(metadata):
                # a terminal shows no Markdown
                typer.echo(f"onepass: {line.replace('*', '').replace('`', '')}", err=True)


caches = typer.Typer(no_args_is_help=True, help="The caches of outputs/cache, which runs share.")
app.add_typer(caches, name="cache")


@caches.command("list")
def list_caches(as_json: AsJson = False):
    """List the caches, and which runs use each."""
    from ..prepare.store.admin import stored_caches

    with report_errors():
        stored = stored_caches(_store())
        lines = [_describe_cache(cache) for cache in stored]
        print_result([asdict(cache) for cache in stored], lines or ["no caches"], as_json)


@caches.command("verify")
def verify_caches(as_json: AsJson = False):
    """Read every byte and name what is damaged; the next run that needs it builds it again."""
    from ..prepare.store.admin import verify_caches as verify

    with report_errors():
        damaged = verify(_store())
        # sixteen letters tell the caches apart
        lines = []
        for key, files in damaged.items():
            result = f"{', '.join(files)}: missing or damaged" if files else "whole"
            lines.append(f"{key[:16]}  {result}")
        value = [{"key": key, "damaged": files} for key, files in damaged.items()]
        print_result(value, lines or ["no caches"], as_json)
        # a script sees the damage by the status
        if any(damaged.values()):
            raise typer.Exit(1)


@caches.command("prune")
def prune_caches(dry_run: DryRun = False, as_json: AsJson = False):
    """Remove the caches that no run uses, and the rest of interrupted builds."""
    from ..prepare.store.admin import prune_caches as prune

    with report_errors():
        removed = prune(_store(), dry_run)
        _print_removed(removed, list(map(_describe_cache, removed)), dry_run, as_json)


def _store() -> Path:
    # read here and not at import: a test may have moved the project
    from ..files import ROOT

    return ROOT / "outputs" / "cache"


def _verb(dry_run: bool) -> str:
    return "would be removed" if dry_run else "removed"


def _print_removed(removed: list[Any], lines: list[str], dry_run: bool, as_json: bool):
    total = sum(item.bytes for item in removed) / MIB
    summary = f"{len(removed)} {_verb(dry_run)}, {total:.1f} MiB"
    print_result([asdict(item) for item in removed], [*lines, summary], as_json)


def _describe_cache(cache: Any) -> str:
    # of a damaged cache only the fault is known
    description = cache.fault
    if not description:
        answers = f", answers about {cache.answers}" if cache.answers else ""
        description = f"{cache.examples} examples of {cache.base}{answers}"
    users = f"used by {', '.join(cache.runs)}" if cache.runs else "used by no run"
    return f"{cache.key[:16]}  {cache.bytes / MIB:9.1f} MiB  {description}; {users}"
