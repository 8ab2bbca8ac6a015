"""Checks of a base before its first use: complete weights, and components that fit together.

No weight is read: headers and settings are enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

from .checks.headers import SETTINGS_SIZE, FileError, check_file, first_line, read_settings
from .checks.weight_shapes import checked_model
from .components import CONFIGS, WEIGHTS, BaseError, unusable_base, weight_files
from .origin import snapshot_origin

if TYPE_CHECKING:
    from .stable_diffusion import StableDiffusion

MIN_TOKENS = 3  # of a text: its ends and something between them
# Results of earlier checks in this process by component and state of its files; the value is the
# settings of a component with weights.
_checked: dict[tuple, Any] = {}


def check_base(base: "StableDiffusion"):
    """Check a base's settings and the headers of its weights, once for each state of its files.

    Errors: BaseError if a weight is missing, unexpected or misshapen, if settings are damaged, or
    if the components do not work together
    """
    _check_links(base)
    settings = {part: _check_component(base, part) for part in base.components}
    for part in base.text_parts:
        if part.startswith("tokenizer"):
            encoder = settings[part.replace("tokenizer", "text_encoder")]
            _check_tokenizer(base, part, encoder)
    _check_fit(base, settings)


def _check_links(base: "StableDiffusion"):
    """Check that no file of a base is a link out of its folder. Errors: BaseError."""
    folder = base.folder
    # the links in a snapshot of the hub's cache lead to the blobs beside all snapshots
    allowed = (folder.parents[1] if snapshot_origin(folder) else folder).resolve()
    for part in ("", *base.components):
        for path in (folder / part).iterdir():
            if not path.resolve().is_relative_to(allowed):
                raise BaseError(
                    f"base {base.name!r}: {path.relative_to(folder)} is a link out of its folder, "
                    "which is not followed; copy the file to its place"
                )


def _check_component(base: "StableDiffusion", part: str) -> Any:
    """Check a component by itself.

    Returns the settings of one with weights, completed by its class.
    """
    with _naming_component(base, part):
        # notebooks find the same base many times
        key = (base.classes.get(part), part, _file_state(base, part))
        if key not in _checked:
            settings = check_component_settings(base.folder, part)
            if part in WEIGHTS:
                files = weight_files(base.folder, part)
                settings = checked_model(base.classes[part], settings, files).config
            elif part == "scheduler":
                base.check_schedule(settings)
            _checked[key] = settings
        return _checked[key]


def check_component_settings(folder: Path, part: str) -> dict[str, Any]:
    """Return the settings of a component.

    Errors: FileError if they, or any file beside them, are no readable plain file
    """
    for path in (folder / part).iterdir():
        # a link to nothing is no file, and reported as missing
        if path.exists() and not path.is_dir():
            check_file(path, None if path.suffix == ".safetensors" else SETTINGS_SIZE)
    return read_settings(folder / part / CONFIGS[part], infinite=part == "scheduler")


def extra_channels(channels: int, latents: int) -> str:
    """Return why a base is unsupported whose denoiser takes more channels than the latents have."""
    return (
        f"its denoiser takes {channels} channels, {latents} of latents and {channels - latents} "
        "of a mask or another picture, as those for inpainting, depth and editing do; allowed is a "
        "base that makes pictures of text alone"
    )


def check_unguided(base: "StableDiffusion"):
    """Check that a base is guided by two passes, as in the stock pipelines. Errors: BaseError."""
    part = base.denoiser_part
    width = read_settings(base.folder / part / CONFIGS[part]).get("time_cond_proj_dim")
    if width is not None:
        raise unusable_base(
            base.name,
            f"its denoiser holds its guidance already (time_cond_proj_dim is {width!r:.20}), so "
            "that pipelines evaluate it once a step, and there is nothing to learn from two; "
            "give the base that it was made from",
        )


def _check_tokenizer(base: "StableDiffusion", part: str, encoder: PretrainedConfig):
    """Check that a text encoder with these settings knows every id of its tokenizer."""
    # T5 has no last position, so a family says how much of it is read
    max_length = getattr(encoder, "max_position_embeddings", None)
    vocabulary = encoder.vocab_size
    with _naming_component(base, part):
        key = (part, max_length, vocabulary, _file_state(base, part))
        if key in _checked:
            return
        tokenizer = base.tokenizer_of(part)
        length = tokenizer.model_max_length if max_length else MIN_TOKENS
        if max_length and (type(length) is not int or not MIN_TOKENS <= length <= max_length):
            raise FileError(
                f"model_max_length is {length!r}, allowed is {MIN_TOKENS} to {max_length}, "
                "which the text encoder reads"
            )
        last = max(tokenizer.get_vocab().values(), default=0)
        if last >= vocabulary:
            raise FileError(
                f"its vocabulary reaches {last}, its text encoder knows ids below {vocabulary}"
            )
        # some damage, for example to the padding token, shows at the first use only
        tokenizer(
            ["a"], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        _checked[key] = True


def _check_fit(base: "StableDiffusion", settings: dict[str, Any]):
    """Check that the output of one component is the input of the next."""
    denoiser = base.denoiser_part
    with _naming_component(base, denoiser):
        channels = settings[denoiser]["in_channels"]
        latents = settings["vae"]["latent_channels"]
        if channels > latents:
            raise unusable_base(base.name, extra_channels(channels, latents))
        # here, because a missing setting of the denoiser fails here
        requirements = list(base.requirements(settings))
    for part, setting, required in requirements:
        with _naming_component(base, part):
            value = settings[part][setting]
            if value != required:
                raise FileError(
                    f"its {setting} is {value!r:.60}, the other parts need {required!r}"
                )


@contextmanager
def _naming_component(base: "StableDiffusion", part: str) -> Iterator[None]:
    """Raise an error as one of this component of this base."""
    try:
        yield
    except BaseError:  # already names its component
        raise
    except Exception as failure:  # the libraries check few of the settings that reach them
        raise BaseError(
            f"base {base.name!r}: its {part} cannot be used ({first_line(failure)}); "
            f"fetch {part}/ again"
        ) from failure


def _file_state(base: "StableDiffusion", part: str) -> tuple:
    """Return a value that changes when a file of a component is written again."""
    # times and inodes, not hashes, which would read gigabytes
    stats = [path.stat() for path in sorted((base.folder / part).iterdir()) if path.is_file()]
    return tuple((stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)
