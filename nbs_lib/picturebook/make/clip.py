"""The tokenizer and the CLIP of the base, trained on pictures and their captions."""

import json
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ..book import GROUP, Book
from ..captions import Caption, draw_caption, draw_scene
from .fit import Fit, fit
from .vae import pixels

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 40  # tokens a prompt may have, start and end included
WIDTH = 192  # of both towers


def train_tokenizer(seed: int = 0, captions: int = 20_000, vocabulary: int = 768) -> CLIPTokenizer:
    """A byte-level BPE of the book's captions in CLIP's own layout: lower case, `</w>` at the end of a word."""
    rng = Random(f"tokenizer {seed}")
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((draw_caption(draw_scene(rng, False), rng).text for _ in range(captions)), trainer)
    trained = json.loads(bpe.to_str())["model"]
    pieces = list(dict.fromkeys(alphabet + [f"{letter}</w>" for letter in alphabet] + list(trained["vocab"]))) + [START, END]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in trained["merges"]]
    return CLIPTokenizer(
        vocab=vocab, merges=merges, bos_token=START, eos_token=END, unk_token=END, pad_token=END, model_max_length=LENGTH
    )


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids [n, 40], padded and truncated as a Stable Diffusion pipeline does."""
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def new_clip(tokenizer: CLIPTokenizer, layers: int = 4) -> CLIPModel:
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": layers, "num_attention_heads": 6}
    text = shared | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = shared | {"image_size": 64, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def train_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, book: Book, how: Fit, folder: Path) -> dict:
    """The symmetric contrastive loss (arXiv 2103.00020) on batches of whole groups, so that near misses are in them.

    A caption that happens to be true of another picture of the batch is no negative for it and is left out.
    book: from `draw_grouped_book`.
    """
    groups = len(book) // GROUP

    def draw_batch(generator):
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        picked = [g * GROUP + i for g in rng.sample(range(groups), how.batch // GROUP) for i in range(GROUP)]
        captions = [draw_caption(book.scenes[i], rng, complete=0.7) for i in picked]
        return pixels(book.images[picked]), tokens(tokenizer, [c.text for c in captions]), true_elsewhere(captions)

    def loss(x, ids, skip):
        out = clip(input_ids=ids, pixel_values=x)
        logits = out.logits_per_image.float().masked_fill(skip, float("-inf"))
        target = torch.arange(len(x), device=x.device)
        both = torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
        return both / 2

    return fit("clip", clip, draw_batch, loss, how, folder)


def true_elsewhere(captions: list[Caption]) -> torch.Tensor:
    """bool [n, n]: whether caption j, of another picture, is true of picture i."""
    n = len(captions)
    return torch.tensor([[i != j and captions[j].holds_for(captions[i].scene) for j in range(n)] for i in range(n)])
