"""The conversion of a checkpoint in one file to a folder in diffusers' layout.

The folder is in outputs/bases and is named after the file and its state, so a file is converted
once, and again after it was changed. It may be removed at any time.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ...files import ROOT, atomic_folder, from_project, value_hash
from ..checks.headers import FileError, first_line, read_header
from ..components import CONFIGS, INDEX, BaseError
from .kinds import Kind, dtype_of, has_t5, kind_of, schedule_settings

STORE = ROOT / "outputs" / "bases"
SETTINGS = Path(__file__).parent / "configs"
MERGES = Path(__file__).with_name("merges.txt")
MAX_STEM = 40  # characters
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")


def converted(name: str, path: Path) -> Path:
    """Return the folder in diffusers' layout that a checkpoint was or is now converted to.

    name: as the user gave it, for errors

    Errors: BaseError if the file is damaged or no whole Stable Diffusion
    """
    try:
        header = read_header(path)
    except FileError as failure:
        raise BaseError(f"base {name!r} cannot be read: {failure}") from None
    kind = kind_of(name, header)
    # a name of 255 bytes would leave no room for what is added to it
    folder = STORE / f"{path.stem[:MAX_STEM]}-{_state(path, kind)[:12]}"
    STORE.mkdir(parents=True, exist_ok=True)
    # processes that start together would all convert it
    with (STORE / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            without = " without its T5" if has_t5(header.weights) else ""
            print(f"base {name!r}: converted to {from_project(folder)}{without}, once for all runs")
            with atomic_folder(folder) as new:
                _convert_weights(name, path, kind, header.weights, new)
                _write_settings(kind, schedule_settings(kind, path, header), new)
    return folder


def _state(path: Path, kind: Kind) -> str:
    """Return a hash over all that a conversion depends on, the content by the file's state."""
    status = path.stat()
    # not the content's hash, which would read gigabytes each time
    state = [str(path.resolve()), status.st_ino, status.st_mtime_ns, status.st_size]
    files = sorted((SETTINGS / kind.config).rglob("*.json"))
    settings = [file.read_text("utf-8") for file in files]
    return value_hash([state, settings, version("diffusers")])


def _convert_weights(name: str, path: Path, kind: Kind, weights: dict, folder: Path):
    """Write each component with weights into its own folder, in the type it has in the file."""
    classes = json.loads((SETTINGS / kind.config / INDEX).read_text("utf-8"))
    # mapped: a weight is read when its component is written
    checkpoint = load_file(path)
    for part in kind.prefixes:
        dtype = dtype_of(name, weights, kind, part)
        library, class_name = classes[part]
        cls = getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name)
        try:
            with _quiet():
                model = _load(cls, checkpoint, kind, part, dtype)
        except NotImplementedError as failure:  # a weight without numbers has no other type
            raise _unfit(name, kind, part, "some of its weights are missing") from failure
        except Exception as failure:  # diffusers checks little of what it converts
            raise _unfit(name, kind, part, first_line(failure)) from failure
        model.save_pretrained(folder / part, safe_serialization=True)


def _load(
    cls: type, checkpoint: dict[str, torch.Tensor], kind: Kind, part: str, dtype: torch.dtype
) -> Any:
    """Return a component of class `cls` with the weights of a checkpoint."""
    options = {
        "config": str(SETTINGS / kind.config),
        "subfolder": part,
        "torch_dtype": dtype,
        "local_files_only": True,
    }
    if part.startswith("text_encoder"):
        return create_diffusers_clip_model_from_ldm(cls, checkpoint, **options)
    # a copy, because some conversions take the names away that they have read
    checkpoint = dict(checkpoint)
    # the hub's own folders have these weights, too, where a file has both
    ema = {"extract_ema": True} if part == "unet" else {}
    return cls.from_single_file(checkpoint, **options, **ema)


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch off diffusers' warnings, which name no problem of a converted file."""
    before = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(before)


def _unfit(name: str, kind: Kind, part: str, reason: str) -> BaseError:
    return BaseError(
        f"base {name!r}: its {part} is not that of {kind.title} ({reason}); fetch the file again, "
        "or give a base of that kind"
    )


def _write_settings(kind: Kind, schedule: dict[str, Any], folder: Path):
    """Write the index, the noise schedule and the tokenizers. schedule: settings to change."""
    source = SETTINGS / kind.config
    shutil.copyfile(source / INDEX, folder / INDEX)
    for part in sorted(path.name for path in source.iterdir() if path.is_dir()):
        if part in kind.prefixes:
            continue
        settings = json.loads((source / part / CONFIGS[part]).read_text("utf-8"))
        if part == "scheduler":
            settings |= schedule
        (folder / part).mkdir()
        (folder / part / CONFIGS[part]).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        if part.startswith("tokenizer"):
            _write_vocabulary(folder / part)


def _write_vocabulary(folder: Path):
    """Write CLIP's merges, and the vocabulary that follows from them: 49,408 tokens."""
    _, *merges = MERGES.read_text("utf-8").splitlines()
    characters = list(bytes_to_unicode().values())
    ends = [f"{character}</w>" for character in characters]
    joined = [merge.replace(" ", "") for merge in merges]
    tokens = [*characters, *ends, *joined, *SPECIAL_TOKENS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    shutil.copyfile(MERGES, folder / MERGES.name)
