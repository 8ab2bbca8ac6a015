"""The words of the captions that a base was trained on, in a file beside its weights.

A base trained from nothing draws a word that no caption had as if it stood for another one. So
whoever trains one writes its words down, and whoever prompts it can be warned. Other bases have no
such file: their captions are a large part of the web.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from random import Random

from ..files import write_atomic
from ..untrusted_files import read_text
from .captions import draw_caption, draw_scene

WORDS_FILE = "words.txt"  # one word a line, sorted
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, each once, in their order."""
    return list(dict.fromkeys(WORD.findall(text.lower())))


def caption_words(count: int = 20_000, seed: int = 0) -> set[str]:
    """Return the words of so many random captions of the book."""
    rng = Random(f"words {seed}")
    words = set()
    for _ in range(count):
        words.update(words_of(draw_caption(draw_scene(rng, held_out=False), rng).text))
    return words


def write_words(folder: Path, words: Iterable[str]):
    """Write a base's words to its folder."""
    write_atomic(folder / WORDS_FILE, "".join(f"{word}\n" for word in sorted(set(words))))


def learned_words(folder: Path) -> frozenset[str]:
    """Return the words that a base was trained on; empty if its folder does not say."""
    try:
        return frozenset(read_text(folder / WORDS_FILE).split())
    except (OSError, ValueError):
        return frozenset()  # a hint is not worth an error
