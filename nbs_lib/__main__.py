"""The `onepass` command: a thin layer over `pipeline`, `export` and the store of caches."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def onepass():
    """Guidance distillation of Stable Diffusion into a LoRA, from notebooks."""


@contextmanager
def _one_sentence(*faults: type[Exception]) -> Iterator[None]:
    """What goes wrong is said once, in one sentence, and the command's status tells of it. faults: of the command's own."""
    from .parameters import ParameterError
    from .run import RunError

    logging.disable()  # a kernel that is stopped is logged with tracebacks, and stock loaders log what is checked here
    try:
        yield
    except ParameterError as wrong:
        _end(wrong, 2)
    except (RunError, *faults) as failure:
        _end(failure, getattr(failure, "code", 1))
    except OSError as failure:
        where = failure.filename or "the run"  # one without a number is a sentence of our own
        _end(failure if failure.errno is None else f"{where} cannot be read or written: {failure.strerror}", 1)
    except KeyboardInterrupt:
        _end("interrupted; give the same command again", 130)


def _end(said: object, code: int):
    typer.echo(f"onepass: {said}", err=True)
    raise typer.Exit(code) from None


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe of notebooks/recipes, or the path of a YAML file.")],
    name: Annotated[str, typer.Option(help="Name of the run, a folder in outputs/; the recipe's name if left out.")] = "",
    p: Annotated[list[str], typer.Option("-p", help="A parameter, STAGE.NAME=VALUE, e.g. -p train.steps=50.")] = [],  # noqa: B006
):
    """Run a recipe: prepare, train, compare. Run again, it goes on where it stopped."""
    from .pipeline import StageError, headline, run_recipe

    with _one_sentence(StageError):
        if done := run_recipe(recipe, name or None, p):
            typer.echo(headline(done))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run in outputs/, or its folder.")],
    to: Annotated[str, typer.Option(help="diffusers, kohya (A1111, ComfyUI) or merged (a whole pipeline).")],
    out: Annotated[str, typer.Option(help="A folder of its own for the export; outputs/RUN/export/TO if left out.")] = "",
):
    """Write a run's adapter for other programs, checked by drawing from it."""
    from .export import ExportError
    from .export import export as export_run
    from .models import BaseError

    with _one_sentence(ExportError, BaseError):
        typer.echo(f"export: {export_run(run, to, Path(out).absolute() if out else None)}")


caches = typer.Typer(no_args_is_help=True, help="The caches of outputs/cache, which runs share.")
app.add_typer(caches, name="cache")
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")]


def _told(rows: list[dict], lines: list[str], as_json: bool):
    typer.echo(json.dumps(rows, indent=1) if as_json else "\n".join(lines))


def _line(each) -> str:
    answers = f", answers about {each.answers}" if each.answers else ""
    what = each.fault or f"{each.examples} examples of {each.base}{answers}"
    runs = f"used by {', '.join(each.runs)}" if each.runs else "used by no run"
    return f"{each.key[:16]}  {each.bytes / 2**20:9.1f} MiB  {what}; {runs}"


@caches.command("list")
def list_caches(as_json: AsJson = False):
    """What there is, and which runs use it."""
    from .files import ROOT
    from .prepare.store import stored

    with _one_sentence():
        found = stored(ROOT / "outputs" / "cache")
        _told([asdict(each) for each in found], [_line(each) for each in found] or ["no caches"], as_json)


@caches.command("verify")
def verify_caches(as_json: AsJson = False):
    """Read every byte; what is damaged is named, and is built again by the next run that needs it."""
    from .files import ROOT
    from .prepare.store import verify

    with _one_sentence():
        found = verify(ROOT / "outputs" / "cache")
        said = {key: f"{', '.join(wrong)}: missing or damaged" if wrong else "whole" for key, wrong in found.items()}
        lines = [f"{key[:16]}  {each}" for key, each in said.items()]
        _told([{"key": key, "damaged": wrong} for key, wrong in found.items()], lines or ["no caches"], as_json)
        if any(found.values()):
            raise typer.Exit(1)


@caches.command("prune")
def prune_caches(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False, as_json: AsJson = False
):
    """Remove what no run uses: caches, and what builds that were cut off have left."""
    from .files import ROOT
    from .prepare.store import prune

    with _one_sentence():
        gone = prune(ROOT / "outputs" / "cache", dry_run)
        total = sum(each.bytes for each in gone) / 2**20
        verb = "would be removed" if dry_run else "removed"
        _told([asdict(each) for each in gone], [*map(_line, gone), f"{len(gone)} {verb}, {total:.1f} MiB"], as_json)


def main():
    app()


if __name__ == "__main__":
    sys.exit(main())
