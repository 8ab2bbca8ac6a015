"""A run on the hub: the folder of its repository, and the upload.

export/hub/
  README.md        the card: license, base, tags, pictures, numbers, how to sample
  pytorch_lora_weights.safetensors, onepass.json, guider/   the export for diffusers
  images/          tuned pictures of the comparison, which the hub shows beside the card
  comparison/      its figures and results.json
  report.html      the comparison on one page

The user's own pictures, which a comparison may show beside the adapter's, stay out of comparison/.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from ..config.validation import ParameterError
from ..files import atomic_folder
from ..run.run import Run
from .exporter import check_export_folder, export, find_run, write_metadata
from .hub_card import card_pictures, hub_card, read_results, with_license
from .model_card import export_metadata

# figures of a comparison that a card shows
FIGURES = ("grid", "rates", "frontier", "differences")
# files of an earlier push, which the next one replaces; all others in the repository stay
REPLACED = ["images/*", "comparison/*", "guider*/*", "report.html"]
REPORT_LIMIT = "there is no comparison of this adapter, so no pictures and no numbers"
NO_TOKEN = (
    "no token of the hub; make one with write access at https://huggingface.co/settings/tokens, "
    "then `hf auth login`, or set HF_TOKEN"
)
REFUSALS = {
    401: "it does not accept the token: `hf auth login` again, or set HF_TOKEN",
    403: "the token may not write there: it needs write access to that user or organization",
}


class HubError(RuntimeError):
    """A push that failed: why, and what to do. The folder of the repository is whole."""


@dataclass(frozen=True)
class Pushed:
    """A repository's folder, and where it was uploaded to; url is "" if it was not.

    files: paths in the repository, with their bytes
    remark: what the repository lacks, "" if nothing
    """

    repository: str
    folder: Path
    files: dict[str, int]
    remark: str
    url: str = ""


def push(run: str | Path, repository: str, license: str = "", dry_run: bool = False) -> Pushed:
    """Write the folder of a run's repository, and upload it as one commit.

    run: name of a run in outputs/, or its folder
    repository: OWNER/NAME on the hub; it is created if there is none
    license: identifier of the adapter's license, "" for that of the base
    dry_run: write the folder only, without the hub

    Errors: ParameterError for another repository or license; HubError without token or network, or
    if the hub refuses; those of `export`.
    """
    check_repository(repository)
    run = find_run(run)
    # before the export, which takes longer
    if not dry_run and get_token() is None:
        raise HubError(NO_TOKEN)
    folder, remark = write_repository(run, repository, license)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    url = "" if dry_run else upload(folder, repository, run.name)
    return Pushed(repository, folder, files, remark, url)


def check_repository(repository: str):
    """Check the name of a repository. Errors: ParameterError."""
    try:
        # the hub's own rules of names
        validate_repo_id(repository)
        good = repository.count("/") == 1
    except HFValidationError:
        good = False
    if not good:
        raise ParameterError(
            f"--to: given {repository!r}; allowed is OWNER/NAME, for example your-name/my-adapter"
        )


def write_repository(run: Run, repository: str, license: str = "") -> tuple[Path, str]:
    """Write export/hub of a run. Returns the folder, and what it lacks, "" if nothing."""
    folder = run.folder / "export" / "hub"
    # before the export, which takes longer
    check_export_folder(folder)
    # asked for before the export, which takes longer; a whole model is refused there
    if run.adapter.is_dir():
        with_license(export_metadata(run, ()), license)
    # its pictures are compared with the run's before anything is public
    exported = export(run.folder, "diffusers")
    facts = with_license(export_metadata(run, ()), license)
    # a half-made repository must not be uploaded by hand
    with atomic_folder(folder, replace=True) as part:
        shutil.copytree(exported, part, dirs_exist_ok=True)
        pictures, figures = [], []
        if facts["compared"]:
            pictures, figures = copy_comparison(run, part)
        card = hub_card(facts, repository, pictures, figures)
        # as the hub reads it: an error here is one of this library
        ModelCard(card, ignore_metadata_errors=False)
        (part / "README.md").write_text(card, encoding="utf-8")
        write_metadata(part, facts)
    return folder, "" if facts["compared"] else REPORT_LIMIT


def copy_comparison(run: Run, part: Path) -> tuple[list[dict], list[str]]:
    """Copy a comparison's pictures, figures, numbers and report into a repository's folder.

    Returns the card's pictures, and the figures' paths in the repository.
    """
    results = read_results(run.compare)
    (part / "images").mkdir()
    (part / "comparison").mkdir()
    pictures = card_pictures(run.compare, results)
    for number, picture in enumerate(pictures):
        picture["path"] = f"images/{number:02}.png"
        shutil.copyfile(picture["file"], part / picture["path"])
    figures = []
    for name in FIGURES:
        # the name of a figure's file is known: no path is taken from the record
        file = run.compare / f"{name}.png"
        if results["figures"].get(name) and file.is_file():
            figures.append(f"comparison/{name}.png")
            shutil.copyfile(file, part / figures[-1])
    shutil.copyfile(run.compare / "results.json", part / "comparison" / "results.json")
    # it can be removed, and the rest stays true
    if run.report.is_file():
        shutil.copyfile(run.report, part / "report.html")
    return pictures, figures


def upload(folder: Path, repository: str, name: str) -> str:
    """Upload a folder as one commit, and return the repository's address. Errors: HubError."""
    # token and address are those of huggingface_hub: HF_TOKEN, HF_ENDPOINT
    api = HfApi()
    try:
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            commit_message=f"Upload {name} by Onepass",
            # a picture that was taken out of the folder must not stay public
            delete_patterns=REPLACED,
        )
    except HfHubHTTPError as failure:
        status = failure.response.status_code
        # the hub's own words, where there is nothing better to say
        reason = REFUSALS.get(status) or failure.server_message or _first_line(failure)
        raise HubError(f"the hub refused {repository} ({status}): {reason}") from failure
    # OSError: no network, or HF_HUB_OFFLINE; ValueError: of the card's metadata
    except (HTTPError, OSError, ValueError, RuntimeError) as failure:
        reason = " ".join(str(failure).split()) or type(failure).__name__
        raise HubError(
            f"{repository} was not uploaded to {api.endpoint}: {reason}; "
            f"{folder} is whole: give the same command again"
        ) from failure
    return str(address)


def _first_line(failure: Exception) -> str:
    return str(failure).strip().partition("\n")[0]
