"""Pictures to latents and captions to embeddings, by a frozen base, in fp32.

What is done here decides what a cache holds, so this module's source is part of every cache's key. A machine gives the
same bits each time; another kind of processor, or another batch size, may round differently.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from tqdm.std import tqdm

from ..models import Base, BaseError
from .images import to_square
from .sources import Example


def check_resolution(base: Base, resolution: int):
    """Errors: BaseError where the base's VAE cannot halve a picture of `resolution` pixels as often as it has to."""
    factor = base.vae_factor
    if resolution % factor:
        raise BaseError(
            f"parameter resolution: given {resolution}; the VAE of base {base.name!r} makes pictures {factor} times smaller, "
            f"so allowed is a multiple of {factor}, for example {max(1, round(resolution / factor)) * factor}"
        )


@torch.no_grad()
def encode_images(base: Base, examples: Sequence[Example], resolution: int, batch_size: int) -> torch.Tensor:
    """Latents of the examples' pictures, as the base's UNet takes them: fp32 [n, c, h, w].

    Errors: BaseError where the VAE answers with something else than finite numbers.
    """
    device = device_of()
    vae = base.vae().to(device, memory_format=torch.channels_last)
    parts = []
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for batch in batches(examples, batch_size, "pictures"):
            squares = [to_square(example.load(), resolution) for example in batch]
            pixels = _pixels(squares).to(device, memory_format=torch.channels_last)
            parts.append(base.encode(vae, pixels).contiguous().cpu())
    latents = torch.cat(parts)
    if not latents.isfinite().all():
        raise BaseError(f"base {base.name!r}: its VAE makes latents that are not finite numbers; its weights may be damaged")
    return latents


@torch.no_grad()
def encode_captions(base: Base, captions: Sequence[str], negative: str, batch_size: int) -> dict[str, torch.Tensor]:
    """Embeddings of the m distinct captions, in order of appearance, and of what the base guides away from.

    Returns `embeddings` fp32 [m, tokens, width], `index` int64 [n] from caption to embedding, `empty` and `negative` fp32
    [tokens, width]: without a negative prompt and with this one, which is the same where it is "". Where the base pools its
    texts also `pooled` fp32 [m, p], `empty_pooled` and `negative_pooled` fp32 [p].
    """
    distinct = list(dict.fromkeys(captions))
    row = {caption: i for i, caption in enumerate(distinct)}
    encoders = [(tokenizer, encoder.to(device_of())) for tokenizer, encoder in base.text_encoders()]
    parts = [base.embed(list(batch), encoders).to("cpu") for batch in batches(distinct, batch_size, "captions")]
    empty, away = (base.unconditional(encoders, prompt).to("cpu") for prompt in ("", negative))
    encoded = {
        "embeddings": torch.cat([part.context for part in parts]),
        "index": torch.tensor([row[caption] for caption in captions]),
        "empty": empty.context[0].contiguous(),
        "negative": away.context[0].contiguous(),
    }
    if empty.pooled is not None:
        encoded["pooled"] = torch.cat([part.pooled for part in parts])
        encoded |= {"empty_pooled": empty.pooled[0].contiguous(), "negative_pooled": away.pooled[0].contiguous()}
    return encoded


def captions_cut(base: Base, captions: Sequence[str]) -> int:
    """How many captions are longer than the text encoder reads; their ends are lost on it."""
    tokenizer = base.tokenizer()
    return sum(len(ids) > tokenizer.model_max_length for ids in tokenizer(list(captions), verbose=False).input_ids)


def device_of() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batches(items: Sequence, size: int, unit: str) -> Iterator[Sequence]:
    """Slices of `items`, with a bar of plain text: widgets are lost in a notebook that ran headlessly."""
    with tqdm(total=len(items), unit=f" {unit}", mininterval=1, ascii=" #") as bar:
        for start in range(0, len(items), size):
            yield (batch := items[start : start + size])
            bar.update(len(batch))


def _pixels(squares: list[Image.Image]) -> torch.Tensor:
    """RGB pictures of one size as fp32 [n, 3, h, w] in [-1, 1]."""
    values = torch.from_numpy(np.stack([np.asarray(square) for square in squares]))
    return values.permute(0, 3, 1, 2).float() / 127.5 - 1
