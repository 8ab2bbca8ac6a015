"""The export of a run, from its adapter to the folder in place."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from ..compare.sampling.sampler import Sampler, load_sampler
from ..config.validation import ParameterError
from ..files import ROOT, atomic_folder
from ..models import BaseError
from ..models.lora.metadata import METADATA_FILE
from ..run.run import Run
from .check import check_pictures, draw_with_run
from .formats import WRITERS, Source
from .kohya import ExportError
from .model_card import export_card, export_metadata


def export(run: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Write a run's adapter for other programs and return the export's folder.

    run: name of a run in outputs/, or its folder
    to: diffusers, kohya or merged
    out: a folder for this export alone, by default export/TO in the run's; an earlier export in
        it is replaced. Relative folders are taken from the project.

    Errors: ParameterError for another `to` or no such run; FileNotFoundError if the run has no
    cache or adapter; BaseError if the base is no longer the one it was trained on; ExportError if
    the export draws other pictures than the run, or `out` holds something else.
    """
    if to not in WRITERS:
        raise ParameterError(f"parameter to: given {to!r}; allowed is one of {', '.join(WRITERS)}")
    run = find_run(run)
    # `method: full` leaves a pipeline instead of an adapter
    if (run.model / METADATA_FILE).is_file():
        raise ExportError(
            f"{run.folder} trained all weights; {run.model} is a whole pipeline already, "
            "for any program to load"
        )
    if not out:
        # an export in the run must not be written through a link
        run.check_links()
    folder = (ROOT / Path(out).expanduser() if out else run.folder / "export" / to).resolve()
    check_export_folder(folder)
    # the run's pictures come first: a base or an adapter that cannot draw is found at once
    sampler = _load_sampler(run)
    metadata = export_metadata(run, sampler.pipelines.adapters.layers)
    source = Source(run, sampler.base, sampler.resolution, metadata)
    expected = draw_with_run(sampler)
    # the folder appears only after the check of its pictures
    with _without_new_parents(folder), atomic_folder(folder, replace=True) as part:
        WRITERS[to](part, source)
        (part / "README.md").write_text(export_card(to, metadata), encoding="utf-8")
        write_metadata(part, metadata)
        check_pictures(part, to, source, expected, sampler)
    return folder


def write_metadata(folder: Path, metadata: dict):
    """Write onepass.json of an export, whose other files are complete."""
    # the next export into this folder may replace these files, and no others
    files = sorted([path.name for path in folder.iterdir()] + [METADATA_FILE])
    text = json.dumps(metadata | {"files": files}, indent=1, ensure_ascii=False)
    (folder / METADATA_FILE).write_text(text + "\n", encoding="utf-8")


def find_run(run: str | Path) -> Run:
    """Return a run by its name in outputs/, or by its folder. Errors: ParameterError."""
    for candidate in (Run(ROOT / "outputs" / run), Run(run)):
        paths = (candidate.record, candidate.adapter, candidate.model)
        if any(path.exists() for path in paths):
            return candidate
    # hidden folders are half-made runs
    names = sorted(record.parent.name for record in (ROOT / "outputs").glob("[!.]*/run.json"))
    existing = "there is none yet"
    if names:
        existing = f"there {'are' if len(names) > 1 else 'is'} {', '.join(names)}"
    raise ParameterError(
        f"run: given {str(run)!r}; allowed is a run in outputs/ ({existing}) or its folder; "
        "`onepass run` makes it"
    )


def check_export_folder(folder: Path):
    """Check that an export into the folder loses nothing but an earlier export.

    Errors: ExportError.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        allowed = "a folder that is new, empty or an earlier export's"
        raise ExportError(f"{folder} is a file; give {allowed}")
    try:
        ours = set(json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        # without readable metadata no file of the folder is known to be an export's
        ours = set()
    others = sorted({path.name for path in folder.iterdir()} - ours)
    if others:
        raise ExportError(
            f"{folder} holds {others[0]!r}, which an export would replace; "
            "give a folder that is new or empty"
        )


def _load_sampler(run: Run) -> Sampler:
    try:
        return load_sampler(run)
    except BaseError:
        # a ValueError too, but one that says what to do already
        raise
    except (ValueError, SafetensorError) as failure:
        raise ExportError(
            f"the adapter in {run.adapter} cannot be exported ({failure}); train it again"
        ) from failure


@contextmanager
def _without_new_parents(folder: Path) -> Iterator[None]:
    """Remove the parents that the context made for a folder, if they are empty at the end."""
    # parents come from the innermost outwards, and are removed in that order
    new = [parent for parent in folder.parents if not parent.exists()]
    try:
        yield
    finally:
        for parent in new:
            # it is not empty if all went well, or another process wrote there too
            with suppress(OSError):
                parent.rmdir()
