"""SD 1.x and 2.x, which differ in sizes and in what their UNet predicts; and what another family has to say of itself.

All that depends on the family stands in its class: which parts there are, what text becomes, what the UNet takes besides
it, how pictures become latents, and which stock pipeline it all makes.
"""

import json
from collections.abc import Iterator
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

Encoders = list[tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]]
"""The text encoders of a base in their order, each with its tokenizer."""


class TextEmbeddings(NamedTuple):
    """Texts as a UNet takes them. context: [n, tokens, width]; pooled: [n, p], None in a family without."""

    context: torch.Tensor
    pooled: torch.Tensor | None

    def to(self, device: torch.device | str) -> "TextEmbeddings":
        """The texts on a device."""
        return TextEmbeddings(*(part if part is None else part.to(device) for part in self))


@dataclass(frozen=True)
class StableDiffusion:
    """A base on disk: SD 1.x or 2.x. Its parts are loaded when asked for, each call anew, in fp32 unless said otherwise.

    name: as it was asked for. origin: what that came to: the same, or the hub id and revision that were downloaded.
    """

    name: str
    folder: Path
    origin: str = ""

    parts: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    pipeline_class: ClassVar[type[DiffusionPipeline]] = StableDiffusionPipeline
    """diffusers' own pipeline for this family; it is what loads a LoRA, too."""
    _added_kind: ClassVar[str | None] = None
    """What its UNet takes besides the context, as diffusers names it."""
    classes: ClassVar[dict[str, type]] = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
    }
    """The class of each part that has weights."""

    @cached_property
    def hash(self) -> str:
        """Hash over the files that are loaded, and over no others that lie beside them."""
        return value_hash(
            [
                [str(path.relative_to(self.folder)), file_hash(path)]
                for path in sorted(self._files())
            ]
        )

    @property
    def text_parts(self) -> tuple[str, ...]:
        """The parts that read texts."""
        return tuple(part for part in self.parts if part.startswith(("text_encoder", "tokenizer")))

    def hash_of(self, *parts: str) -> str:
        """Hash over the files of some parts, and over what the stock pipeline says of itself."""
        files = set().union(*(component_files(self.folder, part) for part in parts))
        index = self.folder / INDEX
        return value_hash([[str(path.relative_to(self.folder)), file_hash(path)] for path in sorted(files)]
                          + [file_hash(index) if index.is_file() else ""])  # fmt: skip

    @property
    def title(self) -> str:
        """The name for others: the hub's repository, or the name of a folder without the place on this machine."""
        return hub_id(self.origin) or Path(self.name).name

    @property
    def license(self) -> dict[str, str]:
        """The license as its card says it, by the names of the hub's metadata; an empty dict where it is not known."""
        return {"license": "mit"} if self.name == "embedded" else license_of(self.folder)

    @property
    def prediction_type(self) -> str:
        return self._settings("scheduler/scheduler_config.json").get("prediction_type", "epsilon")

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of a picture to one of its latents, along a side."""
        return 2 ** (len(self._settings("vae/config.json")["block_out_channels"]) - 1)

    @property
    def latent_channels(self) -> int:
        return self._settings("vae/config.json").get("latent_channels", 4)

    def unet(self, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
        return self._load("unet", dtype)

    def vae(self, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        return self._load("vae", dtype)

    def text_encoder(self, dtype: torch.dtype = torch.float32) -> CLIPTextModel:
        return self._load("text_encoder", dtype)

    def tokenizer(self) -> CLIPTokenizer:
        return self.tokenizer_of("tokenizer")

    def needs(self, settings: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
        """Yield part, name and value of each setting that follows from other parts. settings: of the parts with weights."""
        latents = settings["vae"]["latent_channels"]
        yield from (("vae", name, 3) for name in ("in_channels", "out_channels"))
        yield from (("unet", name, latents) for name in ("in_channels", "out_channels"))
        yield "unet", "cross_attention_dim", self._text_width(settings)
        yield from (
            ("unet", name, None)
            for name in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
        )
        yield "unet", "addition_embed_type", self._added_kind

    def _text_width(self, settings: dict[str, Any]) -> int:
        return settings["text_encoder"].hidden_size

    def scheduler(self, kind: type = DDIMScheduler):
        """The base's noise schedule as a scheduler of class `kind`. Errors: BaseError."""
        try:
            check_settings(kind, read_settings(self.folder / "scheduler" / CONFIGS["scheduler"]))
            # DDIM clips to [-1, 1] unless it is told not to, which is for pictures: latents reach beyond
            scheduler = kind.from_pretrained(
                self.folder / "scheduler", local_files_only=True, clip_sample=False
            )
            kind.from_config(scheduler.config).set_timesteps(
                2
            )  # some settings are read no earlier than this
            return scheduler
        except Exception as failure:  # each scheduler refuses settings in its own way
            said = first_line(failure)
            raise BaseError(
                f"base {self.name!r}: its scheduler cannot be used ({said}); fetch scheduler/ again"
            ) from failure

    def text_encoders(self) -> Encoders:
        """What `embed` and `unconditional` read with; on the CPU, to be moved by who wants them elsewhere."""
        return [(self.tokenizer(), self.text_encoder())]

    @torch.no_grad()
    def encode_prompt(self, texts: list[str], encoders: Encoders) -> TextEmbeddings:
        """Texts as the stock pipeline gives them to the UNet: the last hidden state."""
        [(tokenizer, encoder)] = encoders
        return TextEmbeddings(encoder(token_ids(texts, tokenizer).to(encoder.device))[0], None)

    def encode_negative_prompt(self, encoders: Encoders, negative: str = "") -> TextEmbeddings:
        """What the stock pipeline guides away from, n = 1: the negative prompt; without one (""), the empty prompt."""
        return self.encode_prompt([negative], encoders)

    def random_text(self, n: int, tokens: int, generator: torch.Generator) -> TextEmbeddings:
        """Normal noise in the shape of texts, to probe a UNet with."""
        width = self._settings("unet/config.json")["cross_attention_dim"]
        return TextEmbeddings(torch.randn(n, tokens, width, generator=generator), None)

    def added_cond_kwargs(
        self, pooled: torch.Tensor | None, latents: torch.Tensor
    ) -> dict[str, torch.Tensor] | None:
        """What the UNet takes besides the context, as its `added_cond_kwargs`. latents: [n, c, h, w], for their size."""
        return None

    @torch.no_grad()
    def encode(self, vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures [n, 3, h, w] in [-1, 1] as the UNet's latents: the posterior's mean, scaled."""
        shift, scale = self._shift_and_scale(vae)
        return (vae.encode(pixels).latent_dist.mode() - shift) * scale

    @torch.no_grad()
    def decode(self, vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
        """The UNet's latents as pictures [n, 3, h, w], which reach a little beyond [-1, 1]."""
        shift, scale = self._shift_and_scale(vae)
        return vae.decode(latents / scale + shift).sample

    def _shift_and_scale(self, vae: AutoencoderKL) -> tuple:
        """What the stock pipeline takes for the mean of the VAE's latents, and what these are multiplied by."""
        return 0.0, vae.config.scaling_factor

    def pipeline(self, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
        """All of it as the stock pipeline with a DDIM scheduler and no safety checker, watermark or progress bar."""
        pipe = self.pipeline_class(
            vae=self.vae(dtype),
            text_encoder=self.text_encoder(dtype),
            tokenizer=self.tokenizer(),
            unet=self.unet(dtype),
            scheduler=self.scheduler(),
            **self._rest_of_pipeline(dtype),
        )
        pipe.set_progress_bar_config(disable=True)
        for network in (pipe.unet, pipe.vae):
            network.register_to_config(
                _name_or_path=self.title
            )  # what is saved of it names no place of this machine
        return pipe

    def _rest_of_pipeline(self, dtype: torch.dtype) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def _files(self) -> set[Path]:
        return set().union(*(component_files(self.folder, part) for part in self.parts))

    def _settings(self, file: str) -> dict[str, Any]:
        return json.loads((self.folder / file).read_text("utf-8"))

    def _load(self, part: str, dtype: torch.dtype):
        return load_component(self.classes[part], self.name, self.folder, part, dtype)

    def tokenizer_of(self, part: str) -> CLIPTokenizer:
        """Load the tokenizer of a part."""
        return CLIPTokenizer.from_pretrained(self.folder / part, local_files_only=True)


def token_ids(texts: list[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """[n, tokens]: padded and cut to what the text encoder reads."""
    length = tokenizer.model_max_length
    return tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
