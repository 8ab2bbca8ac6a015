"""Folders of models beside a base: those that measure pictures or caption them, here or on the hub.

They are in transformers' layout, with their weights as safetensors.
"""

from pathlib import Path

from ..files import ROOT
from .checks.headers import FileError, read_settings
from .loading import is_hub_id

FILES = ("*.json", "*.txt", "*.safetensors")  # of a model, at the top of its folder


def find_model_folder(name: str) -> Path:
    """Return the folder of a model, fetched if its name is a hub id.

    name: a folder, a relative one starts at the project; or a hub id
    Errors: FileError if there is none, or if it holds what is not read here.
    """
    folder = _download(name) if is_on_hub(name) else _local_folder(name)
    # refused here, or transformers would ask the hub for a mistyped folder
    if not folder.is_dir():
        raise FileError("there is no such folder")
    # transformers would import what it names
    if read_settings(folder / "config.json").get("quantization_config") is not None:
        raise FileError("its config.json asks for quantized weights, which are not supported")
    if not any(folder.glob("*.safetensors")):
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
