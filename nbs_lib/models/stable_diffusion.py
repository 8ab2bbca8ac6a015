"""SD 1.x and 2.x, and the interface of a base's family.

Everything that depends on the family is in its class: the components, the text embeddings, the call
of the denoiser, the noise schedule, the scaling of latents, and the stock pipeline.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    ModelMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from ..config.contenders import DIFFUSION_SAMPLERS, SCHEDULERS
from .base_folder import BaseFolder, Encoders, TextEmbeddings, token_ids
from .checks.component_settings import check_settings
from .checks.headers import first_line, read_settings
from .components import CONFIGS, BaseError
from .noise_schedule import NoiseSchedule, check_diffusion_schedule


class StableDiffusion(BaseFolder):
    """A base on disk, SD 1.x or 2.x."""

    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    # the denoiser's component
    denoiser_part: ClassVar[str] = "unet"
    is_flow: ClassVar[bool] = False
    # diffusers' schedulers that sample it
    schedulers: ClassVar[tuple[str, ...]] = DIFFUSION_SAMPLERS
    # whether the stock pipeline has a mark of a denoiser that holds its guidance
    can_embed_guidance: ClassVar[bool] = True
    # diffusers' own pipeline for this family, which also loads a LoRA
    pipeline_class: ClassVar[type[DiffusionPipeline]] = StableDiffusionPipeline
    # diffusers' name for the kind of the UNet's additional inputs
    _addition_type: ClassVar[str | None] = None
    # the class of each component with weights
    classes = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
    }

    @property
    def load_options(self) -> dict[str, Any]:
        """Options of the stock pipeline's `from_pretrained` besides the folder."""
        return {}

    @property
    def prediction_type(self) -> str:
        """The denoiser's prediction: epsilon, v_prediction, sample or flow_prediction."""
        return self._settings("scheduler/scheduler_config.json").get("prediction_type", "epsilon")

    def denoiser(self, dtype: torch.dtype = torch.float32) -> ModelMixin:
        """Load the UNet or transformer."""
        return self._load(self.denoiser_part, dtype)

    def denoiser_of(self, pipe: DiffusionPipeline) -> ModelMixin:
        """Return the denoiser of the stock pipeline."""
        return getattr(pipe, self.denoiser_part)

    def predict(
        self,
        denoiser: torch.nn.Module,
        x_t: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        pooled: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the prediction of a denoiser of this family, [n, c, h, w].

        x_t: noisy latents [n, c, h, w]
        t: what it reads for the timesteps, [n]; see `NoiseSchedule.times`
        context, pooled: texts, see `TextEmbeddings`
        """
        inputs, options = self._denoiser_inputs(x_t, t, context, pooled)
        return denoiser(*inputs, **options, return_dict=False)[0]

    def _denoiser_inputs(self, x_t, t, context, pooled) -> tuple[tuple, dict[str, Any]]:
        """Return the arguments of a denoiser's call by position, x_t first, and those by name."""
        return (x_t, t, context), {"added_cond_kwargs": self.added_cond_kwargs(pooled, x_t)}

    def load_adapter(self, denoiser: ModelMixin, file: Path):
        """Load a LoRA into a denoiser, as the stock pipeline does."""
        state, alphas, metadata = self.pipeline_class.lora_state_dict(
            file.parent, weight_name=file.name, return_lora_metadata=True
        )
        self.pipeline_class.load_lora_into_unet(state, alphas, denoiser, metadata=metadata)

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

    def noise_schedule(self) -> NoiseSchedule:
        """Return the noise levels that the base was trained on. Errors: BaseError."""
        return NoiseSchedule.diffusion(self.scheduler().alphas_cumprod, self.prediction_type)

    def check_schedule(self, settings: dict[str, Any]):
        """Check that the base can be trained on the noise levels of a scheduler's settings.

        Errors: FileError if they are damaged; BaseError for another kind of noise
        """
        check_diffusion_schedule(self.name, settings, self.scheduler)

    def sampler(self, name: str, spacing: str = "") -> tuple[str, str]:
        """Return scheduler and timestep spacing where SD 1.x and 2.x are sampled with these."""
        return name, spacing

    def scheduler(self, kind: type = DDIMScheduler, **options: Any):
        """Return the noise schedule as a scheduler of class `kind`. Errors: BaseError."""
        # DDIM clips to [-1, 1], and latents are larger
        return self._scheduler(kind, options | {"clip_sample": False})

    def _scheduler(self, kind: type, options: dict[str, Any]):
        # one for flows would sample a diffusion, or the reverse, without an error
        if kind.__name__ in SCHEDULERS and kind.__name__ not in self.schedulers:
            raise BaseError(
                f"scheduler: given {kind.__name__!r} with base {self.name!r}; "
                f"allowed is {', '.join(self.schedulers)}"
            )
        folder = self.folder / "scheduler"
        try:
            check_settings(kind, read_settings(folder / CONFIGS["scheduler"], infinite=True))
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
        yield from self._required_channels(settings)
        yield "unet", "cross_attention_dim", self._text_width(settings)
        for name in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
            # inputs that neither training nor sampling here provides
            yield "unet", name, None
        yield "unet", "addition_embed_type", self._addition_type

    def _required_channels(self, settings: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
        latents = settings["vae"]["latent_channels"]
        for part, channels in (("vae", 3), (self.denoiser_part, latents)):
            yield part, "in_channels", channels
            yield part, "out_channels", channels

    def _text_width(self, settings: dict[str, Any]) -> int:
        return settings["text_encoder"].hidden_size

    def text_encoders(self) -> Encoders:
        """Load the encoders for `encode_prompt` and `encode_negative_prompt`, on the CPU."""
        return [(self.tokenizer(), self.text_encoder())]

    @torch.no_grad()
    def encode_prompt(self, texts: list[str], encoders: Encoders) -> TextEmbeddings:
        """Return texts as the stock pipeline gives them to the denoiser: the last hidden state."""
        [(tokenizer, encoder)] = encoders
        ids = token_ids(texts, tokenizer).to(encoder.device)
        return TextEmbeddings(encoder(ids)[0], None)

    def encode_negative_prompt(self, encoders: Encoders, negative: str = "") -> TextEmbeddings:
        """Return what the stock pipeline guides away from, n = 1.

        negative: the negative prompt; "" for the family's default, the empty prompt
        """
        return self.encode_prompt([negative], encoders)

    @property
    def text_tokens(self) -> int:
        """Tokens of a text's embeddings."""
        return self.tokenizer().model_max_length

    def random_text(self, n: int, tokens: int, generator: torch.Generator) -> TextEmbeddings:
        """Return normal noise in the shape of text embeddings, to probe a denoiser with."""
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
        """Load the stock pipeline, without safety checker, watermark and progress bar."""
        pipe = self.pipeline_class(
            vae=self.vae(dtype),
            text_encoder=self.text_encoder(dtype),
            tokenizer=self.tokenizer(),
            scheduler=self.scheduler(),
            **{self.denoiser_part: self.denoiser(dtype)},
            **self._pipeline_options(dtype),
        )
        # callers have bars of their own
        pipe.set_progress_bar_config(disable=True)
        for network in (self.denoiser_of(pipe), pipe.vae):
            # a saved copy would otherwise name a folder of this machine
            network.register_to_config(_name_or_path=self.title)
        return pipe

    def _pipeline_options(self, dtype: torch.dtype) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
