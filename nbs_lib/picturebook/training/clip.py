"""The tokenizer and the CLIP of the base, trained on pictures and their captions."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ..captions import ATTRIBUTES, TIMES_OF_DAY, Caption, draw_caption, draw_scene
from ..dataset import GROUP, PictureBook
from .fit import Fit, train_network
from .vae import vae_pixels

START = "<|startoftext|>"
END = "<|endoftext|>"
LENGTH = 40  # tokens of a prompt, start and end included
TOWER_WIDTH = 192  # of both towers
NO_VALUE = -100  # the target that cross_entropy ignores


def train_tokenizer(seed: int = 0, captions: int = 20_000, vocabulary: int = 768) -> CLIPTokenizer:
    """Return a byte-level BPE of the book's captions in CLIP's layout.

    It is in lower case, with `</w>` at the end of a word.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    # as CLIP's own tokenizer
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(_random_texts(seed, captions), trainer)
    trained = json.loads(bpe.to_str())["model"]
    # CLIP's order: letters, letters at the end of a word, merges, special tokens
    letters = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    pieces = [*dict.fromkeys([*letters, *trained["vocab"]]), START, END]
    return CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[tuple(merge) for merge in trained["merges"]],
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=LENGTH,
    )


def _random_texts(seed: int, count: int) -> Iterator[str]:
    rng = Random(f"tokenizer {seed}")
    for _ in range(count):
        yield draw_caption(draw_scene(rng, held_out=False), rng).text


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Return token ids [n, 40], padded and truncated as in a Stable Diffusion pipeline."""
    return tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


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
    vision = shared | {"image_size": 64, "patch_size": 8}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
    positions = clip.vision_model.embeddings.position_embedding
    with torch.no_grad():
        positions.weight[1:] = position_embeddings(64 // 8, TOWER_WIDTH)
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


class ClipWithReader(torch.nn.Module):
    """A CLIP under training, with a linear layer that reads a scene's attributes from an embedding.

    The contrastive loss alone does not start: while one tower does not tell left from right, the
    other has nothing to gain from it. The reader is applied to each tower by itself, and it is
    thrown away with this module.
    """

    def __init__(self, clip: CLIPModel, seed: int):
        super().__init__()
        self.clip = clip
        self.values: dict[str, tuple[str, ...]] = {}
        for attributes in ATTRIBUTES.values():
            self.values |= attributes
        self.values["time"] = TIMES_OF_DAY  # one kind has fewer
        outputs = sum(map(len, self.values.values()))
        # first weights that are not zero: from zero neither tower would get a gradient
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.reader = torch.nn.Linear(clip.config.projection_dim, outputs)

    def forward(
        self, ids: torch.Tensor, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return similarities of pictures to captions, and the values read from both.

        Shapes: [n, n], and twice [n, all values].
        """
        output = self.clip(input_ids=ids, pixel_values=x)
        # embeddings are on the unit sphere; CLIP's own factor sharpens the softmax
        scale = self.clip.logit_scale.exp()
        from_image = self.reader(output.image_embeds) * scale
        from_text = self.reader(output.text_embeds) * scale
        return output.logits_per_image.float(), from_image.float(), from_text.float()

    def targets(self, captions: list[Caption], named: bool) -> torch.Tensor:
        """Return the index of each attribute's value, int64 [n, attributes]; NO_VALUE for none.

        named: only the attributes that the caption names
        """
        return torch.tensor([self._target(caption, named) for caption in captions])

    def _target(self, caption: Caption, named: bool) -> list[int]:
        scene = caption.scene.attributes
        readable = [name for name in scene if not named or name in caption.named]
        return [
            values.index(scene[name]) if name in readable else NO_VALUE
            for name, values in self.values.items()
        ]

    def reading_loss(self, read: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy over all values that can be read.

        read: [n, all values]
        targets: [n, attributes]
        """
        parts = read.split([len(values) for values in self.values.values()], dim=1)
        losses = [
            cross_entropy(part, target, reduction="sum")
            for part, target in zip(parts, targets.T, strict=True)
        ]
        return sum(losses) / (targets >= 0).sum()


def train_clip(
    clip: CLIPModel, tokenizer: CLIPTokenizer, book: PictureBook, options: Fit, folder: Path
) -> dict:
    """Train CLIP by the symmetric contrastive loss and the reading losses.

    Batches are whole groups, so that near misses are in them.

    book: from `draw_grouped_book`

    Source: arXiv 2103.00020.
    """
    clip.set_attn_implementation("eager")  # a third faster on a CPU at this size
    model = ClipWithReader(clip, options.seed)
    groups = range(len(book) // GROUP)

    def draw_batch(generator):
        # captions come from Python's random, seeded by the step's generator
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        picked = []
        for group in rng.sample(groups, options.batch // GROUP):
            picked += range(group * GROUP, (group + 1) * GROUP)
        captions = [draw_caption(book.scenes[i], rng, complete=0.7) for i in picked]
        ids = tokens(tokenizer, [caption.text for caption in captions])
        # CLIP reads nothing after the first end
        ends = (ids == tokenizer.eos_token_id).int().argmax(1)
        ids = ids[:, : int(ends.max()) + 1]
        skip = true_of_other_pictures(captions)
        all_targets = model.targets(captions, named=False)
        named_targets = model.targets(captions, named=True)
        return vae_pixels(book.images[picked]), ids, skip, all_targets, named_targets

    def loss(x, ids, skip, all_targets, named_targets):
        logits, from_image, from_text = model(ids, x)
        # a caption that is also true of another picture is no negative for it
        logits = logits.masked_fill(skip, float("-inf"))
        target = torch.arange(len(x), device=x.device)
        contrastive = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        # a picture shows all values of its scene, a caption only those it names
        image_loss = model.reading_loss(from_image, all_targets)
        text_loss = model.reading_loss(from_text, named_targets)
        return contrastive + image_loss + text_loss

    return train_network("clip", model.to(clip.device), draw_batch, loss, options, folder)


def true_of_other_pictures(captions: list[Caption]) -> torch.Tensor:
    """Return whether caption j, of another picture, is true of picture i, bool [n, n]."""
    n = len(captions)
    matches = torch.zeros(n, n, dtype=torch.bool)
    for i, picture in enumerate(captions):
        for j, caption in enumerate(captions):
            matches[i, j] = i != j and caption.holds_for(picture.scene)
    return matches
