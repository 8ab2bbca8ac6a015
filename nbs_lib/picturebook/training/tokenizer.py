"""The tokenizer of the base: everyday English in CLIP's layout."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ...files import atomic_folder
from ..captions import draw_caption, draw_scene
from .pictures.icons import IconPackages

START = "<|startoftext|>"
END = "<|endoftext|>"
LENGTH = 40  # tokens of a prompt, start and end included
VOCABULARY = 4070
# Bytes that UTF-8 never holds, and those that another byte always follows. A token of them would be
# a row of the embedding that nothing can reach.
NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}
LEADS = range(0xC2, 0xF5)
# How often a text counts beside one caption of the book: the words for things come first.
NAME_WEIGHT = 150
KEYWORD_WEIGHT = 8
FLAGS = 9  # the group of the flags, whose names are countries
COMMON_WORDS = 3000  # of the word list; rarer ones are spelled


def everyday_texts(packages: IconPackages, seed: int = 0, captions: int = 20_000) -> Iterator[str]:
    """Yield the texts that the vocabulary is made from.

    They are captions of the book, names and keywords of icons, and common English words.
    """
    rng = Random(f"tokenizer {seed}")
    for _ in range(captions):
        yield draw_caption(draw_scene(rng, held_out=False), rng).text
    for entry in packages.annotations():
        if entry["group"] == FLAGS:
            continue
        yield from [entry["label"]] * NAME_WEIGHT
        yield from entry["tags"] * KEYWORD_WEIGHT
    for rank, word in enumerate(packages.words()[:COMMON_WORDS]):
        # by Zipf's law, in steps
        yield from [word] * (1 + 4 * COMMON_WORDS // (COMMON_WORDS // 4 + rank))


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> CLIPTokenizer:
    """Return a byte-level BPE of texts in CLIP's layout.

    It is in lower case, with `</w>` at the end of a word.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    # as CLIP's own tokenizer
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letter_of = bytes_to_unicode()
    alphabet = sorted(letter for byte, letter in letter_of.items() if byte not in NEVER)
    leads = {letter_of[byte] for byte in LEADS}
    # CLIP's order: letters, letters at the end of a word, merges, special tokens
    letters = [*alphabet, *(f"{letter}</w>" for letter in alphabet if letter not in leads)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(alphabet) - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    trained = json.loads(bpe.to_str())["model"]
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


def stored_tokenizer(folder: Path, texts: Iterable[str]) -> CLIPTokenizer:
    """Return a tokenizer of texts that is trained once and then read from `folder`.

    Pairs that are as frequent as others are merged in any order, another one in each process. A
    text tower knows the tokens of the order that it was trained with.
    """
    stored = folder / "tokenizer"
    if not stored.exists():
        with atomic_folder(stored) as part:
            train_tokenizer(texts).save_pretrained(part)
    return CLIPTokenizer.from_pretrained(stored, local_files_only=True)


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Return token ids [n, 40], padded and truncated as in a Stable Diffusion pipeline."""
    return tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
