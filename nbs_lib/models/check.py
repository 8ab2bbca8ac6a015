"""A base held against itself before anything is computed with it: its weights, and whether its parts fit together.

No weight is read: headers and settings tell enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import CLIPTextConfig

from .headers import SETTINGS_SIZE, FileError, check_file, first_line, read_settings
from .parts import CONFIGS, INDEX, WEIGHTS, BaseError, part_files, weight_files
from .shapes import checked_model

if TYPE_CHECKING:
    from .sd import Base

_checked: set[tuple] = set()


def check_base(base: "Base"):
    """Check a base's settings and the headers of its weights, once for each state of its files.

    Errors: BaseError where a weight is missing, unexpected or misshapen, where settings are damaged, or where the parts
    do not work together.
    """
    if (stamp := _stamp(base)) in _checked:
        return
    models = {}
    for part in base.parts:
        with _named(base, part):
            settings = checked_settings(base.folder, part)
            if part in WEIGHTS:
                models[part] = checked_model(base.classes[part], settings, weight_files(base.folder, part))
    _check_schedule(base)
    for part in base.text_parts:
        if part.startswith("tokenizer"):
            _check_tokenizer(base, part, models[part.replace("tokenizer", "text_encoder")].config)
    _check_together(base, models)
    _checked.add(stamp)


def checked_settings(folder: Path, part: str) -> dict[str, Any]:
    """Return the settings of a part. Errors: FileError where they, or any file beside them, are none that can be read."""
    for path in (folder / part).iterdir():
        if path.exists() and not path.is_dir():
            check_file(path, None if path.suffix == ".safetensors" else SETTINGS_SIZE)
    return read_settings(folder / part / CONFIGS[part])


def _check_schedule(base: "Base"):
    with _named(base, "scheduler"):
        scheduler = base.scheduler()
        levels = scheduler.alphas_cumprod
        if not len(levels) or not bool(((levels >= 0) & (levels <= 1)).all()):
            raise FileError("its noise levels are not between 0 and 1")
        scheduler.set_timesteps(2)


def _check_tokenizer(base: "Base", part: str, encoder: CLIPTextConfig):
    """Check that a text encoder of these settings knows every id of its tokenizer."""
    with _named(base, part):
        tokenizer = base.tokenizer_of(part)
        length, most = tokenizer.model_max_length, encoder.max_position_embeddings
        if type(length) is not int or not 2 < length <= most:
            raise FileError(f"model_max_length is {length!r}, allowed is 3 to {most}, which the text encoder reads")
        if (last := max(tokenizer.get_vocab().values(), default=0)) >= encoder.vocab_size:
            raise FileError(f"its vocabulary reaches {last}, its text encoder knows ids below {encoder.vocab_size}")
        tokenizer(["a"], padding="max_length", max_length=length, truncation=True, return_tensors="pt")


def _check_together(base: "Base", models: dict[str, torch.nn.Module]):
    """Check that what one part gives is what the next one takes."""
    with _named(base, "unet"):
        needs = list(base.needs({part: model.config for part, model in models.items()}))
    for part, setting, wanted in needs:
        with _named(base, part):
            if (given := models[part].config[setting]) != wanted:
                raise FileError(f"its {setting} is {given!r:.60}, the other parts need {wanted!r}")


@contextmanager
def _named(base: "Base", part: str) -> Iterator[None]:
    """Raise an error within as one of this part of this base."""
    try:
        yield
    except BaseError:
        raise
    except Exception as failure:  # the libraries check few of the settings that reach them
        raise BaseError(
            f"base {base.name!r}: its {part} cannot be used ({first_line(failure)}); fetch {part}/ again"
        ) from failure


def _stamp(base: "Base") -> tuple:
    """What changes when a file is written anew."""
    files = sorted(set().union({base.folder / INDEX}, *(part_files(base.folder, part) for part in base.parts)))
    stats = [path.stat() for path in files if path.is_file()]
    return type(base), base.folder, *((each.st_ino, each.st_mtime_ns, each.st_size) for each in stats)
