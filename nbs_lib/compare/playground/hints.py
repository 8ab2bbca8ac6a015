"""Hints while a prompt is typed: what the base or the text encoder cannot make of it."""

from functools import cached_property

from ...cache.format import Cache, read_cache_metadata
from ...models import StableDiffusion
from ...picturebook.words import learned_words, words_of
from ...run.run import Run
from ..sampling.sizes import PictureSizes

MAX_WORDS = 8  # that a hint names


def new_captions(run: Run, objective: str) -> list[str]:
    """Return the captions of the pictures that a run taught its base, [] if it taught none."""
    if objective != "finetune":
        return []  # distillation teaches the base's own pictures, with guidance or in fewer steps
    try:
        return Cache(run.cache, read_cache_metadata(run.cache)).captions
    except (OSError, ValueError):
        return []  # only a hint depends on it


class Hints:
    """Sentences about what will not be drawn as it was asked for."""

    def __init__(self, base: StableDiffusion, sizes: PictureSizes, captions: list[str]):
        """captions: that an adapter was trained on to draw new things; [] if it was not."""
        self.base = base
        self.sizes = sizes
        learned = learned_words(base.folder)
        # a base whose words are unknown has no hint, whatever its adapter learned
        self.words = learned.union(*map(words_of, captions)) if learned else learned

    def of_request(self, prompts: list[str], width: float | None, height: float | None) -> str:
        """Return what to know about prompts and a size, a sentence on each line."""
        sentences = [
            self.unknown_words(prompts),
            self.cut_prompt(prompts),
            self.other_size(width, height),
        ]
        return "\n".join(sentence for sentence in sentences if sentence)

    def unknown_words(self, prompts: list[str]) -> str:
        """Return a sentence that names the words that the base never learned, or else ""."""
        unknown = [word for word in words_of(" ".join(prompts)) if word not in self.words]
        if not unknown or not self.words:
            return ""
        named = ", ".join(unknown[:MAX_WORDS])
        more = f" and {len(unknown) - MAX_WORDS} more" if len(unknown) > MAX_WORDS else ""
        return (
            f"This base never learned: {named}{more}. It draws something else for them; "
            f"it knows {len(self.words)} words, such as those in the run's prompts."
        )

    def cut_prompt(self, prompts: list[str]) -> str:
        """Return a sentence if the text encoder does not read all of a prompt, or else ""."""
        limit = self._tokenizer.model_max_length
        # verbose=False: transformers would warn of the same
        lengths = [len(self._tokenizer(prompt, verbose=False).input_ids) for prompt in prompts]
        longest = max(lengths, default=0)
        if longest <= limit:
            return ""
        return (
            f"The text encoder reads {limit} tokens, and the prompt has {longest}: "
            "its end is not drawn."
        )

    def other_size(self, width: float | None, height: float | None) -> str:
        """Return a sentence if pictures of a size were never trained on, or else ""."""
        side = self.sizes.trained
        # an empty field has an error of its own when it is drawn
        if None in (width, height) or width == height == side:
            return ""
        return (
            f"Trained at {side} × {side}: at {width:g} × {height:g} pictures are often worse, "
            "with things twice or cut off."
        )

    @cached_property
    def _tokenizer(self):
        # kept, because a hint is given for every key
        return self.base.tokenizer()
