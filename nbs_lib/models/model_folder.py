"""Models beside a base: those that measure pictures or caption them, in a folder or on the hub.

They are in transformers' layout, with their weights as safetensors.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import CLIPModel, PreTrainedModel

from ..files import ROOT
from .checks.headers import FileError, first_line, read_settings
from .components import BaseError, no_progress_bar, weights_not_finite
from .loading import EMBEDDED, is_hub_id

# Files of a model, at the top of its folder. Repositories of CLIP often have the weights again
# beside them, in another program's file.
FILES = ("*.json", "*.txt", "model*.safetensors")
# Nothing more is fetched, and no code of the folder is run.
LOCAL = {"local_files_only": True, "trust_remote_code": False}
# Errors of the loaders for files that are damaged or missing, or need a package that is not here.
LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    ImportError,
    AttributeError,
    TypeError,
    SafetensorError,
)


def find_model_folder(name: str) -> Path:
    """Return the folder of a model, fetched if its name is a hub id.

    name: a folder, a relative one starts at the project; or a hub id

    Errors: FileError if there is none, or if it holds what is not read here
    """
    folder = _download(name) if is_on_hub(name) else _local_folder(name)
    # refused here, or transformers would ask the hub for a mistyped folder
    if not folder.is_dir():
        raise FileError("there is no such folder")
    # transformers would import what it names
    if read_settings(folder / "config.json").get("quantization_config") is not None:
        raise FileError("its config.json asks for quantized weights, which are not supported")
    if not any(folder.glob("model*.safetensors")):
        raise FileError("it has no weights as safetensors, and pickled ones are not read")
    return folder


def is_on_hub(name: str) -> bool:
    """Return True for a hub id that is no folder here."""
    return is_hub_id(name) and not _local_folder(name).is_dir()


def _local_folder(name: str) -> Path:
    return ROOT / Path(name).expanduser()


def _download(name: str) -> Path:
    # imported late, because a local folder needs no hub
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except Exception as failure:  # of the hub, of the network, or of an invalid id
        raise FileError(f"it is not to be had from the hub ({type(failure).__name__})") from failure


def load_model(cls: type, folder: Path, attention: str = "eager") -> PreTrainedModel:
    """Return the model in a folder, frozen, in fp32 on the CPU.

    cls: a class of transformers with `from_pretrained`, such as AutoModel
    attention: its implementation; eager is the one that every model has

    Errors: FileError if it does not load, or if weights are missing or no numbers
    """
    model, info = load_part(
        cls,
        folder,
        use_safetensors=True,
        # the settings could name a kernel of a hub
        attn_implementation=attention,
        dtype=torch.float32,
        output_loading_info=True,
    )
    # transformers draws missing weights at random
    if missing := sorted(info["missing_keys"]):
        raise FileError(f"it lacks {len(missing)} weights, for example {missing[0]}")
    if broken := weights_not_finite(model):
        raise FileError(f"it has weights that are no numbers ({broken})")
    return model.requires_grad_(False).eval()


def load_part(cls: type, folder: Path, **options: Any) -> Any:
    """Return what a folder holds for a class of transformers, such as its tokenizer.

    options: of `from_pretrained`

    Errors: FileError if it does not load
    """
    try:
        with no_progress_bar():
            return cls.from_pretrained(folder, **options, **LOCAL)
    except LOADING_ERRORS as failure:
        raise FileError(f"it does not load ({first_line(failure)})") from failure


def embedded_clip() -> CLIPModel:
    """Return both towers of the embedded base's CLIP, which scores the picture-book's pictures.

    Errors: BaseError if its files are damaged
    """
    try:
        return load_model(CLIPModel, EMBEDDED / "clip", attention="sdpa")
    except FileError as failure:
        raise BaseError(f"the embedded CLIP: {failure}; install Onepass again") from failure
