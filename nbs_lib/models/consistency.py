"""A base held against itself before anything is computed with it: its weights, and whether its parts fit together.

No weight is read: headers and settings tell enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import CLIPTextConfig

from .checks.headers import SETTINGS_SIZE, FileError, check_file, first_line, read_settings
from .checks.weight_shapes import checked_model
from .components import CONFIGS, WEIGHTS, BaseError, weight_files

if TYPE_CHECKING:
    from .stable_diffusion import StableDiffusion

DIFFUSION_SCHEDULERS = (
    *(kind.name for kind in KarrasDiffusionSchedulers if kind.name != "EDMEulerScheduler"),
    "DDIMInverseScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler", "DPMSolverMultistepInverseScheduler",
    "LCMScheduler", "SASolverScheduler", "TCDScheduler",
)  # fmt: skip
"""The schedulers with the noise levels of DDPM. Those of flows and of EDM noise a picture in other ways."""
NO_FLOW = "flows and EDM are not supported; allowed is a base that predicts epsilon, v_prediction or sample"
LEAST_SIGNAL = 1e-12
"""Of a noise level with which fp32 finds a picture from the noise in it. The real last levels are about 0.005."""
_checked: dict[tuple, Any] = {}
"""What was checked before in this process, by part and state of its files; of a part with weights, its settings."""


def check_base(base: "StableDiffusion"):
    """Check a base's settings and the headers of its weights, once for each state of its files.

    Errors: BaseError where a weight is missing, unexpected or misshapen, where settings are damaged, or where the parts
    do not work together.
    """
    settings = {part: _checked_part(base, part) for part in base.parts}
    for part in base.text_parts:
        if part.startswith("tokenizer"):
            _check_tokenizer(base, part, settings[part.replace("tokenizer", "text_encoder")])
    _check_together(base, settings)


def _checked_part(base: "StableDiffusion", part: str) -> Any:
    """Check a part by itself; returns the settings of one with weights, as its class completes them."""
    with _named(base, part):
        if (key := (base.classes.get(part), part, _stamp(base, part))) in _checked:
            return _checked[key]
        settings = check_component_settings(base.folder, part)
        if part in WEIGHTS:
            settings = checked_model(
                base.classes[part], settings, weight_files(base.folder, part)
            ).config
        elif part == "scheduler":
            _check_schedule(base, settings)
        _checked[key] = settings
    return settings


def check_component_settings(folder: Path, part: str) -> dict[str, Any]:
    """Return the settings of a part. Errors: FileError where they, or any file beside them, are none that can be read."""
    for path in (folder / part).iterdir():
        if path.exists() and not path.is_dir():
            check_file(path, None if path.suffix == ".safetensors" else SETTINGS_SIZE)
    return read_settings(folder / part / CONFIGS[part])


def _check_schedule(base: "StableDiffusion", settings: dict[str, Any]):
    """Check that a base has a schedule of noise levels, and one that what its UNet predicts can be used at."""
    if (
        kind := settings.get("_class_name", "DDIMScheduler")
    ) not in DIFFUSION_SCHEDULERS or settings.get("use_flow_sigmas"):
        raise unusable_base(
            base,
            f"its scheduler is {kind!r:.60}, which mixes no noise by levels of DDPM; {NO_FLOW}",
        )
    if (predicts := settings.get("prediction_type", "epsilon")) == "flow_prediction":
        raise unusable_base(
            base, f"its UNet predicts a flow (prediction_type is {predicts!r}); {NO_FLOW}"
        )
    scheduler = base.scheduler()
    levels = scheduler.alphas_cumprod
    if len(levels) != (steps := scheduler.config.num_train_timesteps) or not bool(
        ((levels >= 0) & (levels <= 1)).all()
    ):
        raise FileError(f"its {len(levels)} noise levels are not {steps} numbers between 0 and 1")
    if predicts == "epsilon" and float(levels.min()) < LEAST_SIGNAL:
        raise unusable_base(
            base,
            "its UNet predicts epsilon, and its noise schedule ends without any signal (zero terminal SNR), where that says "
            "nothing of the picture; allowed are v_prediction and sample with such a schedule, or another one "
            "(rescale_betas_zero_snr: false in scheduler/scheduler_config.json), as the base was trained",
        )


def unusable_base(base: "StableDiffusion", why: str) -> BaseError:
    """Return the error of a base that is whole and cannot be used here."""
    return BaseError(f"base {base.name!r} cannot be used: {why}")


def check_unguided(base: "StableDiffusion"):
    """Check that a base is guided by two passes, as the stock pipelines guide it. Errors: BaseError."""
    if (
        width := read_settings(base.folder / "unet" / CONFIGS["unet"]).get("time_cond_proj_dim")
    ) is not None:
        raise unusable_base(
            base,
            f"its UNet holds its guidance already (time_cond_proj_dim is {width!r:.20}), so that pipelines evaluate it once a "
            "step, and there is nothing to learn from two; give the base that it was made from",
        )


def _check_tokenizer(base: "StableDiffusion", part: str, encoder: CLIPTextConfig):
    """Check that a text encoder of these settings knows every id of its tokenizer."""
    with _named(base, part):
        if (
            key := (part, encoder.max_position_embeddings, encoder.vocab_size, _stamp(base, part))
        ) in _checked:
            return
        tokenizer = base.tokenizer_of(part)
        length, most = tokenizer.model_max_length, encoder.max_position_embeddings
        if type(length) is not int or not 2 < length <= most:
            raise FileError(
                f"model_max_length is {length!r}, allowed is 3 to {most}, which the text encoder reads"
            )
        if (last := max(tokenizer.get_vocab().values(), default=0)) >= encoder.vocab_size:
            raise FileError(
                f"its vocabulary reaches {last}, its text encoder knows ids below {encoder.vocab_size}"
            )
        tokenizer(
            ["a"], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        _checked[key] = True


def _check_together(base: "StableDiffusion", settings: dict[str, Any]):
    """Check that what one part gives is what the next one takes."""
    with _named(base, "unet"):
        takes, latents = settings["unet"]["in_channels"], settings["vae"]["latent_channels"]
        if takes > latents:
            raise unusable_base(
                base,
                f"its UNet takes {takes} channels, {latents} of latents and {takes - latents} of a mask or another picture, as "
                "those for inpainting, depth and editing do; allowed is a base that makes pictures of text alone",
            )
        needs = list(base.needs(settings))
    for part, setting, wanted in needs:
        with _named(base, part):
            if (given := settings[part][setting]) != wanted:
                raise FileError(f"its {setting} is {given!r:.60}, the other parts need {wanted!r}")


@contextmanager
def _named(base: "StableDiffusion", part: str) -> Iterator[None]:
    """Raise an error within as one of this part of this base."""
    try:
        yield
    except BaseError:
        raise
    except Exception as failure:  # the libraries check few of the settings that reach them
        raise BaseError(
            f"base {base.name!r}: its {part} cannot be used ({first_line(failure)}); fetch {part}/ again"
        ) from failure


def _stamp(base: "StableDiffusion", part: str) -> tuple:
    """What changes when a file of a part is written anew."""
    stats = [path.stat() for path in sorted((base.folder / part).iterdir()) if path.is_file()]
    return tuple((each.st_dev, each.st_ino, each.st_mtime_ns, each.st_size) for each in stats)
