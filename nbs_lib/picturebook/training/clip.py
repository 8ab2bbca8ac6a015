"""The CLIP of the base, trained on scenes among their near misses and on captioned icons."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ..canvas import SIZE
from ..captions import Caption, draw_caption
from ..dataset import GROUP
from .clip_reader import ClipWithReader
from .loop.fit import Fit, train_network
from .pictures.icons import Icon
from .pictures.mixture import place_icon
from .pictures.stored_book import StoredBook
from .tokenizer import LENGTH, tokens
from .vae import vae_pixels

TOWER_WIDTH = 192  # of both towers
PATCH = 16  # pixels a side
ICON_SHARE = 4  # a quarter of a batch are icons
ICON_WORDINGS = ("{name}", "{a} {name}", "An icon of {a} {name}", "A picture of {a} {name}")


@dataclass(frozen=True)
class Example:
    """A picture of a batch, with what is said of it."""

    picture: np.ndarray  # uint8 [128, 128, 3]
    text: str
    caption: Caption | None = None  # of a scene
    name: str = ""  # of an icon

    def describes(self, other: "Example") -> bool:
        """Return True if this example's text is true of the other's picture."""
        if self.caption is None or other.caption is None:
            # icons of one name differ in style, and no text says the style
            return bool(self.name) and self.name == other.name
        return self.caption.holds_for(other.caption.scene)


def new_clip(tokenizer: CLIPTokenizer, layers: int = 4) -> CLIPModel:
    """Return an untrained CLIP."""
    shared = {
        "hidden_size": TOWER_WIDTH,
        "intermediate_size": 4 * TOWER_WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 6,
    }
    text = shared | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = shared | {"image_size": SIZE, "patch_size": PATCH}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
    positions = clip.vision_model.embeddings.position_embedding
    with torch.no_grad():
        positions.weight[1:] = position_embeddings(SIZE // PATCH, TOWER_WIDTH)
    return clip


def position_embeddings(side: int, width: int) -> torch.Tensor:
    """Return first embeddings of `side` × `side` positions, [side², width].

    They are sines and cosines of row and column.

    Source: arXiv 1706.03762, sec. 3.5, on two axes.
    """
    frequencies = 2 ** torch.linspace(0, 4, width // 4)
    angles = torch.arange(side)[:, None] / side * torch.pi / 2 * frequencies
    # about as large as the patches' embeddings, so that position counts from the start
    axis = 0.15 * torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([axis.repeat_interleave(side, 0), axis.repeat(side, 1)], 1)


def train_clip(
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    book: StoredBook,
    icons: Sequence[Icon],
    options: Fit,
    folder: Path,
    seconds: float = math.inf,
) -> dict:
    """Train CLIP by the symmetric contrastive loss and the reading losses.

    Batches hold whole groups of scenes, so that near misses are in them, and some icons.

    Source: arXiv 2103.00020.
    """
    clip.set_attn_implementation("eager")  # a third faster on a CPU at this size
    model = ClipWithReader(clip, options.seed)
    n_icons = options.batch // ICON_SHARE
    n_groups = (options.batch - n_icons) // GROUP

    def draw_batch(generator):
        # captions come from Python's random, seeded by the step's generator
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        examples = draw_scenes(book, n_groups, rng) + draw_icons(icons, n_icons, rng)
        ids = tokens(tokenizer, [example.text for example in examples])
        # CLIP reads nothing after the first end
        ends = (ids == tokenizer.eos_token_id).int().argmax(1)
        ids = ids[:, : int(ends.max()) + 1]
        captions = [example.caption for example in examples]
        targets = (model.targets(captions, named=False), model.targets(captions, named=True))
        pictures = torch.from_numpy(np.stack([example.picture for example in examples]))
        return pictures, ids, true_of_other_pictures(examples), *targets

    def loss(pictures, ids, skip, all_targets, named_targets):
        logits, from_image, from_text = model(ids, vae_pixels(pictures))
        # a caption that is also true of another picture is no negative for it
        logits = logits.masked_fill(skip, float("-inf"))
        target = torch.arange(len(logits), device=logits.device)
        contrastive = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        # a picture shows all values of its scene, a caption only those it names
        image_loss = model.reading_loss(from_image, all_targets)
        text_loss = model.reading_loss(from_text, named_targets)
        return contrastive + image_loss + text_loss

    model.to(clip.device)
    return train_network("clip", model, draw_batch, loss, options, folder, seconds)


def draw_scenes(book: StoredBook, groups: int, rng: Random) -> list[Example]:
    """Return whole groups of scenes, with a caption for each."""
    examples = []
    for group in rng.sample(range(len(book) // GROUP), groups):
        places = range(group * GROUP, (group + 1) * GROUP)
        for place, picture in zip(places, book.pictures(places), strict=True):
            caption = draw_caption(book.scenes[place], rng, complete=0.7)
            examples.append(Example(picture, caption.text, caption))
    return examples


def draw_icons(icons: Sequence[Icon], count: int, rng: Random) -> list[Example]:
    """Return icons on random backgrounds, with a caption for each."""
    drawn = [rng.choice(icons) for _ in range(count)]
    return [
        Example(np.asarray(place_icon(icon, rng)), icon_caption(icon, rng), name=icon.name)
        for icon in drawn
    ]


def icon_caption(icon: Icon, rng: Random) -> str:
    """Return a random caption of an icon, at times with one of its keywords."""
    article = "an" if icon.name[0].lower() in "aeiou" else "a"
    text = rng.choice(ICON_WORDINGS).format(name=icon.name, a=article)
    # keywords bring words that no name has
    if icon.keywords and rng.random() < 0.3:
        text += f", {rng.choice(icon.keywords)}"
    return text


def true_of_other_pictures(examples: Sequence[Example]) -> torch.Tensor:
    """Return whether text j, of another picture, is true of picture i, bool [n, n]."""
    n = len(examples)
    matches = torch.zeros(n, n, dtype=torch.bool)
    for i, picture in enumerate(examples):
        for j, text in enumerate(examples):
            matches[i, j] = i != j and text.describes(picture)
    return matches
