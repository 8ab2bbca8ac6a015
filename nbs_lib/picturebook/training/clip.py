"""The tokenizer and the CLIP of the base, trained on pictures and their captions."""

import json
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ..captions import ATTRIBUTES, TIMES, Caption, draw_caption, draw_scene
from ..dataset import GROUP, PictureBook
from .fit import Fit, fit
from .vae import vae_pixels

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 40  # tokens a prompt may have, start and end included
WIDTH = 192  # of both towers


def train_tokenizer(seed: int = 0, captions: int = 20_000, vocabulary: int = 768) -> CLIPTokenizer:
    """A byte-level BPE of the book's captions in CLIP's own layout: lower case, `</w>` at the end of a word."""
    rng = Random(f"tokenizer {seed}")
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
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
    bpe.train_from_iterator(
        (draw_caption(draw_scene(rng, False), rng).text for _ in range(captions)), trainer
    )
    trained = json.loads(bpe.to_str())["model"]
    pieces = list(
        dict.fromkeys(alphabet + [f"{letter}</w>" for letter in alphabet] + list(trained["vocab"]))
    ) + [START, END]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in trained["merges"]]
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=LENGTH,
    )


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids [n, 40], padded and truncated as a Stable Diffusion pipeline does."""
    return tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def new_clip(tokenizer: CLIPTokenizer, layers: int = 4) -> CLIPModel:
    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
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
    with torch.no_grad():
        clip.vision_model.embeddings.position_embedding.weight[1:] = places(64 // 8, WIDTH)
    return clip


def places(side: int, width: int) -> torch.Tensor:
    """First position embeddings of `side` × `side` patches: sines and cosines of row and column, [side², width].

    About as large as the patches' own embeddings, so that from the start it counts where something is, and not only what.
    Source: arXiv 1706.03762, sec. 3.5, on two axes.
    """
    angles = (
        torch.arange(side)[:, None] / side * torch.pi / 2 * 2 ** torch.linspace(0, 4, width // 4)
    )
    axis = 0.15 * torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([axis.repeat_interleave(side, 0), axis.repeat(side, 1)], 1)


class CaptionBatch(torch.nn.Module):
    """A CLIP under training, with one linear reader that names a scene's attributes from either tower's embedding.

    By the contrastive loss alone, as long as one tower does not tell left from right, the other has nothing to gain from
    it, and neither begins. The reader asks each tower by itself; it starts from weights that are not zero, for the same
    reason, and is thrown away with this module.
    """

    def __init__(self, clip: CLIPModel, seed: int):
        super().__init__()
        self.clip = clip
        self.values = {
            name: values for kind in ATTRIBUTES.values() for name, values in kind.items()
        }
        self.values["time"] = TIMES  # one kind has fewer
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.reader = torch.nn.Linear(
                clip.config.projection_dim, sum(map(len, self.values.values()))
            )

    def forward(
        self, ids: torch.Tensor, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Similarities [n, n] of n pictures to n captions, and what is read in each: two of [n, all values]."""
        out = self.clip(input_ids=ids, pixel_values=x)
        scale = self.clip.logit_scale.exp()
        seen, said = (
            self.reader(embedding) * scale for embedding in (out.image_embeds, out.text_embeds)
        )
        return out.logits_per_image.float(), seen.float(), said.float()

    def targets(self, captions: list[Caption], named: bool) -> torch.Tensor:
        """The index of each attribute's value, int64 [n, attributes]; -100, which the loss skips, where there is none to
        read. named: only those that the caption names."""
        rows = [
            {n: v for n, v in c.scene.attributes.items() if not named or n in c.named}
            for c in captions
        ]
        indices = [
            [
                values.index(row[name]) if name in row else -100
                for name, values in self.values.items()
            ]
            for row in rows
        ]
        return torch.tensor(indices)

    def reading_loss(self, read: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy over all values that are to be read. read: [n, all values]; targets: [n, attributes]."""
        each = read.split([len(values) for values in self.values.values()], dim=1)
        losses = [
            cross_entropy(part, target, reduction="sum")
            for part, target in zip(each, targets.T, strict=True)
        ]
        return sum(losses) / (targets >= 0).sum()


def train_clip(
    clip: CLIPModel, tokenizer: CLIPTokenizer, book: PictureBook, how: Fit, folder: Path
) -> dict:
    """The symmetric contrastive loss (arXiv 2103.00020) on batches of whole groups, so that near misses are in them,
    plus what `Taught` adds.

    A caption that happens to be true of another picture of the batch is no negative for it and is left out.
    book: from `draw_grouped_book`.
    """
    clip.set_attn_implementation("eager")  # a third faster on a CPU at this size
    groups, taught = len(book) // GROUP, CaptionBatch(clip, how.seed)

    def draw_batch(generator):
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        picked = [
            g * GROUP + i
            for g in rng.sample(range(groups), how.batch // GROUP)
            for i in range(GROUP)
        ]
        captions = [draw_caption(book.scenes[i], rng, complete=0.7) for i in picked]
        ids = tokens(tokenizer, [c.text for c in captions])
        longest = (
            int((ids == tokenizer.eos_token_id).int().argmax(1).max()) + 1
        )  # nothing after the first end is read
        targets = taught.targets(captions, named=False), taught.targets(captions, named=True)
        return vae_pixels(book.images[picked]), ids[:, :longest], true_elsewhere(captions), *targets

    def loss(x, ids, skip, shown, named):
        logits, seen, said = taught(ids, x)
        logits = logits.masked_fill(skip, float("-inf"))
        target = torch.arange(len(x), device=x.device)
        both = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        return both + taught.reading_loss(seen, shown) + taught.reading_loss(said, named)

    return fit("clip", taught.to(clip.device), draw_batch, loss, how, folder)


def true_elsewhere(captions: list[Caption]) -> torch.Tensor:
    """bool [n, n]: whether caption j, of another picture, is true of picture i."""
    n = len(captions)
    return torch.tensor(
        [[i != j and captions[j].holds_for(captions[i].scene) for j in range(n)] for i in range(n)]
    )
