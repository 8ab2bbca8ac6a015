"""SD 3 and 3.5: a flow on straight paths, a transformer, and two or three text encoders."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ModelMixin,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch.nn.functional import pad
from transformers import CLIPTextModelWithProjection, T5EncoderModel, T5TokenizerFast

from ..config.contenders import FLOW_SAMPLERS
from .attention import count_equal_tokens
from .base_folder import Encoders, TextEmbeddings, Tokenizer, token_ids
from .checks.headers import read_settings
from .components import INDEX
from .noise_schedule import FLOW, NoiseSchedule, check_flow_settings
from .stable_diffusion import StableDiffusion

# Tokens of T5 in the stock pipeline, which has as many zeros without T5.
T5_TOKENS = 256
# The schedulers that take the places of DDIM and LCM.
EULER, LCM, *_ = FLOW_SAMPLERS


class StableDiffusion3(StableDiffusion):
    """A base on disk, SD 3 or 3.5.

    Its third text encoder, T5, is optional, as in the stock pipeline.

    Source: arXiv 2403.03206.
    """

    parts = (
        "transformer",
        "vae",
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "scheduler",
    )
    optional_parts = ("text_encoder_3", "tokenizer_3")
    denoiser_part = "transformer"
    is_flow = True
    can_embed_guidance = False
    schedulers = FLOW_SAMPLERS
    pipeline_class = StableDiffusion3Pipeline
    classes = {
        "transformer": SD3Transformer2DModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
    }

    @classmethod
    def parts_in(cls, folder: Path) -> tuple[str, ...]:
        """Return the components, T5 among them if model_index.json or the folder has it."""
        index = folder / INDEX
        if not index.is_file():
            return cls.parts + tuple(
                part for part in cls.optional_parts if (folder / part).is_dir()
            )
        # the stock pipeline loads what the index names, and [null, null] stands for nothing
        settings = read_settings(index)
        classes = {part: settings.get(part) for part in cls.optional_parts}
        named = [part for part, value in classes.items() if isinstance(value, list) and any(value)]
        return (*cls.parts, *named)

    @property
    def has_t5(self) -> bool:
        """Return True if the base has its third text encoder."""
        return "text_encoder_3" in self.components

    @property
    def load_options(self) -> dict[str, Any]:
        # the stock pipeline does without only if it is asked to
        return {} if self.has_t5 else dict.fromkeys(self.optional_parts)

    @property
    def prediction_type(self) -> str:
        return FLOW

    def denoiser(self, dtype: torch.dtype = torch.float32) -> ModelMixin:
        transformer = super().denoiser(dtype)
        if not self.has_t5:
            # the zeros in T5's place are most tokens of a small picture
            count_equal_tokens(transformer, super().text_tokens)
        return transformer

    def _denoiser_inputs(self, x_t, t, context, pooled) -> tuple[tuple, dict[str, Any]]:
        # the transformer computes its time embedding in the type of the pooled text
        return (x_t, context, pooled.to(context.dtype), t), {}

    def load_adapter(self, denoiser: ModelMixin, file: Path):
        state, metadata = self.pipeline_class.lora_state_dict(
            file.parent, weight_name=file.name, return_lora_metadata=True
        )
        self.pipeline_class.load_lora_into_transformer(state, denoiser, metadata=metadata)

    def noise_schedule(self) -> NoiseSchedule:
        # rising, as timesteps do; the scheduler begins with pure noise
        return NoiseSchedule.flow(self.scheduler().sigmas.flip(0))

    def sampler(self, name: str, spacing: str = "") -> tuple[str, str]:
        if name == "DDIMScheduler":
            return EULER, spacing
        # the scheduler's own few steps end at hardly any noise, where a step is wasted
        return (LCM, "trailing") if name == "LCMScheduler" else (name, spacing)

    def scheduler(self, kind: type = FlowMatchEulerDiscreteScheduler, **options: Any):
        """Return the noise schedule as a scheduler of class `kind`. Errors: BaseError."""
        if "use_flow_sigmas" in inspect.signature(kind).parameters:
            shift = self._settings("scheduler/scheduler_config.json").get("shift", 1.0)
            options = options | {
                "use_flow_sigmas": True,
                "flow_shift": shift,
                "prediction_type": FLOW,
            }
        return self._scheduler(kind, options)

    def check_schedule(self, settings: dict[str, Any]):
        check_flow_settings(settings)
        self.scheduler()

    def requirements(self, settings: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
        yield from self._required_channels(settings)
        encoders = [settings["text_encoder"], settings["text_encoder_2"]]
        pooled = sum(encoder.projection_dim for encoder in encoders)
        yield "transformer", "pooled_projection_dim", pooled
        # the texts of both stand side by side, and zeros fill the rest of T5's width
        width = sum(encoder.hidden_size for encoder in encoders)
        if self.has_t5:
            yield "transformer", "joint_attention_dim", settings["text_encoder_3"].d_model
        if settings["transformer"]["joint_attention_dim"] < width:
            yield "transformer", "joint_attention_dim", width

    def tokenizer_of(self, part: str) -> Tokenizer:
        if part != "tokenizer_3":
            return super().tokenizer_of(part)
        return T5TokenizerFast.from_pretrained(self.folder / part, local_files_only=True)

    def text_encoders(self) -> Encoders:
        names = [part for part in self.components if part.startswith("text_encoder")]
        return [
            (
                self.tokenizer_of(name.replace("text_encoder", "tokenizer")),
                self._load(name, torch.float32),
            )
            for name in names
        ]

    @torch.no_grad()
    def encode_prompt(self, texts: list[str], encoders: Encoders) -> TextEmbeddings:
        """Return the second to last hidden states of both CLIPs side by side, and T5's after them.

        pooled is the projection of both CLIPs.
        """
        *clips, t5 = encoders if self.has_t5 else [*encoders, None]
        # the stock pipeline reads as many tokens with the second tokenizer as with the first
        length = clips[0][0].model_max_length
        outputs = []
        for tokenizer, encoder in clips:
            ids = token_ids(texts, tokenizer, length).to(encoder.device)
            outputs.append(encoder(ids, output_hidden_states=True))
        clip = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        width = self._settings("transformer/config.json")["joint_attention_dim"]
        if t5 is None:
            last = clip.new_zeros(len(texts), T5_TOKENS, width)
        else:
            tokenizer, encoder = t5
            last = encoder(token_ids(texts, tokenizer, T5_TOKENS).to(encoder.device))[0]
        context = torch.cat([pad(clip, (0, width - clip.shape[-1])), last], dim=-2)
        return TextEmbeddings(context, torch.cat([output[0] for output in outputs], dim=-1))

    @property
    def text_tokens(self) -> int:
        return super().text_tokens + T5_TOKENS

    def random_text(self, n: int, tokens: int, generator: torch.Generator) -> TextEmbeddings:
        settings = self._settings("transformer/config.json")
        context = torch.randn(n, tokens, settings["joint_attention_dim"], generator=generator)
        if not self.has_t5:
            context[:, super().text_tokens :] = 0
        pooled = torch.randn(n, settings["pooled_projection_dim"], generator=generator)
        return TextEmbeddings(context, pooled)

    def _shift_and_scale(self, vae: AutoencoderKL) -> tuple:
        return vae.config.shift_factor or 0.0, vae.config.scaling_factor

    def _pipeline_options(self, dtype: torch.dtype) -> dict[str, Any]:
        options = self.load_options
        for part in self.components:
            if part.startswith("text_encoder_"):
                options[part] = self._load(part, dtype)
            elif part.startswith("tokenizer_"):
                options[part] = self.tokenizer_of(part)
        return options
