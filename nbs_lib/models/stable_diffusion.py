"""SD 1.x and 2.x, and the interface of a base's family.

Everything that depends on the family is in its class: the components, the text embeddings, the
UNet's additional inputs, the scaling of latents, and the stock pipeline.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..files import file_hash, value_hash
from .checks.component_settings import check_settings
from .checks.headers import first_line, read_settings
from .components import CONFIGS, INDEX, BaseError, component_files, load_component
from .origin import hub_id, license_of

# The text encoders of a base in their order, each with its tokenizer.
Encoders = list[tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]]


class TextEmbeddings(NamedTuple):
    """Texts as a UNet takes them."""

    context: torch.Tensor  # [n, tokens, width]
    pooled: torch.Tensor | None  # [n, p]; None in a family without

    def to(self, device: torch.device | str) -> "TextEmbeddings":
        """Return the embeddings on a device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return TextEmbeddings(self.context.to(device), pooled)


@dataclass(frozen=True)
class StableDiffusion:
    """A base on disk, SD 1.x or 2.x.

    Each call loads a component again, frozen, in fp32 by default.

    name: as the user gave it
    origin: the name, or the hub id and revision that were downloaded
    """

    name: str
    folder: Path
    origin: str = ""

    parts: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    # diffusers' own pipeline for this family, which also loads a LoRA
    pipeline_class: ClassVar[type[DiffusionPipeline]] = StableDiffusionPipeline
    # diffusers' name for the kind of the UNet's additional inputs
    _addition_type: ClassVar[str | None] = None
    # the class of each component with weights
    classes: ClassVar[dict[str, type]] = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
    }

    @cached_property
    def hash(self) -> str:
        """A hash of the files that are loaded, without others beside them."""
        return value_hash(self._file_hashes(self._files()))

    @property
    def text_parts(self) -> tuple[str, ...]:
        """The components that read texts."""
        return tuple(part for part in self.parts if part.startswith(("text_encoder", "tokenizer")))

    def hash_of(self, *parts: str) -> str:
        """Return a hash of the files of some components and of the stock pipeline's settings."""
        files = set().union(*(component_files(self.folder, part) for part in parts))
        index = self.folder / INDEX
        # SDXL's index has a setting of the empty prompt
        index_hash = file_hash(index) if index.is_file() else ""
        return value_hash([*self._file_hashes(files), index_hash])

    def _file_hashes(self, files: Iterable[Path]) -> list[list[str]]:
        return [[str(path.relative_to(self.folder)), file_hash(path)] for path in sorted(files)]

    @property
    def title(self) -> str:
        """The base's name for other machines: the hub's repository, or the folder's last part."""
        return hub_id(self.origin) or Path(self.name).name

    @property
    def license(self) -> dict[str, str]:
        """The license fields of its card by the hub's names; {} if unknown."""
        return {"license": "mit"} if self.name == "embedded" else license_of(self.folder)  # ours

    @property
    def prediction_type(self) -> str:
        """The UNet's prediction: epsilon, v_prediction or sample."""
        return self._settings("scheduler/scheduler_config.json").get("prediction_type", "epsilon")

    @property
    def vae_scale_factor(self) -> int:
        """Pixels for each latent along a side."""
        # each block but the last halves the picture
        return 2 ** (len(self._settings("vae/config.json")["block_out_channels"]) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self._settings("vae/config.json").get("latent_channels", 4)

    def unet(self, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
        """Load the UNet."""
        return self._load("unet", dtype)

    def vae(self, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        """Load the VAE."""
        return self._load("vae", dtype)

    def text_encoder(self, dtype: torch.dtype = torch.float32) -> CLIPTextModel:
        """Load the text encoder."""
        return self._load("text_encoder", dtype)

    def tokenizer(self) -> CLIPTokenizer:
        """Load the tokenizer."""
        return self.tokenizer_of("tokenizer")

    def tokenizer_of(self, part: str) -> CLIPTokenizer:
        """Load the tokenizer of a component."""
        return CLIPTokenizer.from_pretrained(self.folder / part, local_files_only=True)

    def scheduler(self, kind: type = DDIMScheduler, **options: Any):
        """Return the noise schedule as a scheduler of class `kind`. Errors: BaseError."""
        folder = self.folder / "scheduler"
        try:
            check_settings(kind, read_settings(folder / CONFIGS["scheduler"], infinite=True))
            options["clip_sample"] = False  # DDIM clips to [-1, 1], and latents are larger
            scheduler = kind.from_pretrained(folder, local_files_only=True, **options)
            # some settings are read only here, by a copy
            kind.from_config(scheduler.config).set_timesteps(2)
            return scheduler
        except Exception as failure:  # each scheduler refuses settings in another way
            raise BaseError(
                f"base {self.name!r}: its scheduler cannot be used ({first_line(failure)}); "
                "fetch scheduler/ again"
            ) from failure

    def requirements(self, settings: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
        """Yield component, name and value of each setting that follows from other components."""
        latents = settings["vae"]["latent_channels"]
        for part, channels in (("vae", 3), ("unet", latents)):
            yield part, "in_channels", channels
            yield part, "out_channels", channels
        yield "unet", "cross_attention_dim", self._text_width(settings)
        for name in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
            # inputs that neither training nor sampling here provides
            yield "unet", name, None
        yield "unet", "addition_embed_type", self._addition_type

    def _text_width(self, settings: dict[str, Any]) -> int:
        return settings["text_encoder"].hidden_size

    def text_encoders(self) -> Encoders:
        """Load the encoders for `encode_prompt` and `encode_negative_prompt`, on the CPU."""
        return [(self.tokenizer(), self.text_encoder())]

    @torch.no_grad()
    def encode_prompt(self, texts: list[str], encoders: Encoders) -> TextEmbeddings:
        """Return texts as the stock pipeline gives them to the UNet: the last hidden state."""
        [(tokenizer, encoder)] = encoders
        ids = token_ids(texts, tokenizer).to(encoder.device)
        return TextEmbeddings(encoder(ids)[0], None)

    def encode_negative_prompt(self, encoders: Encoders, negative: str = "") -> TextEmbeddings:
        """Return what the stock pipeline guides away from, n = 1.

        negative: the negative prompt; "" for the family's default, the empty prompt
        """
        return self.encode_prompt([negative], encoders)

    def random_text(self, n: int, tokens: int, generator: torch.Generator) -> TextEmbeddings:
        """Return normal noise in the shape of text embeddings, to probe a UNet with."""
        width = self._settings("unet/config.json")["cross_attention_dim"]
        return TextEmbeddings(torch.randn(n, tokens, width, generator=generator), None)

    def added_cond_kwargs(
        self, pooled: torch.Tensor | None, latents: torch.Tensor
    ) -> dict[str, torch.Tensor] | None:
        """Return the UNet's additional inputs; latents [n, c, h, w] give the picture's size."""
        return None

    @torch.no_grad()
    def encode(self, vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
        """Return pictures [n, 3, h, w] in [-1, 1] as latents: the posterior's mean, scaled."""
        shift, scale = self._shift_and_scale(vae)
        return (vae.encode(pixels).latent_dist.mode() - shift) * scale

    @torch.no_grad()
    def decode(self, vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
        """Return latents as pictures [n, 3, h, w], which reach a little beyond [-1, 1]."""
        shift, scale = self._shift_and_scale(vae)
        return vae.decode(latents / scale + shift).sample

    def _shift_and_scale(self, vae: AutoencoderKL) -> tuple:
        """Return the mean of the VAE's latents in the stock pipeline, and their factor."""
        return 0.0, vae.config.scaling_factor

    def pipeline(self, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
        """Load the stock pipeline with DDIM, without safety checker, watermark and progress bar."""
        pipe = self.pipeline_class(
            vae=self.vae(dtype),
            text_encoder=self.text_encoder(dtype),
            tokenizer=self.tokenizer(),
            unet=self.unet(dtype),
            scheduler=self.scheduler(),
            **self._pipeline_options(dtype),
        )
        # callers have bars of their own
        pipe.set_progress_bar_config(disable=True)
        for network in (pipe.unet, pipe.vae):
            # a saved copy would otherwise name a folder of this machine
            network.register_to_config(_name_or_path=self.title)
        return pipe

    def _pipeline_options(self, dtype: torch.dtype) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def _files(self) -> set[Path]:
        return set().union(*(component_files(self.folder, part) for part in self.parts))

    def _settings(self, file: str) -> dict[str, Any]:
        return json.loads((self.folder / file).read_text("utf-8"))

    def _load(self, part: str, dtype: torch.dtype):
        return load_component(self.classes[part], self.name, self.folder, part, dtype)


def token_ids(texts: list[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Return token ids [n, tokens], padded and truncated to the text encoder's length."""
    length = tokenizer.model_max_length
    return tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
