"""Hints about prompts: which words a base never learned, by the file beside its weights."""

import pytest

from nbs_lib.compare.playground.hints import Hints
from nbs_lib.compare.sampling.sizes import PictureSizes
from nbs_lib.models import EMBEDDED
from nbs_lib.picturebook.captions import held_out_captions
from nbs_lib.picturebook.words import caption_words, learned_words, words_of, write_words

SIZES = PictureSizes(64, 8, 32, 128)


@pytest.fixture(scope="module")
def hints(base):
    return Hints(base, SIZES, [])


def test_the_shipped_base_s_words_hold_every_caption_of_the_book(base):
    words = learned_words(EMBEDDED)
    assert caption_words(2000) <= words
    for caption in held_out_captions(200):
        assert set(words_of(caption.text)) <= words


def test_unknown_words_are_named_once_and_the_rest_counted(hints):
    assert hints.unknown_words(["A person, holding a CAT!"]) == ""
    text = hints.unknown_words(["an astronaut riding a horse", "a horse"])
    assert text.startswith("This base never learned: astronaut, riding, horse. ")
    many = hints.unknown_words([" ".join(f"word{i}" for i in range(11))])
    assert "word7 and 3 more. " in many and "word8" not in many


def test_what_an_adapter_learned_is_no_unknown_word(base):
    hints = Hints(base, SIZES, ["a snowman in a scarf"])
    assert "never learned: horse." in hints.unknown_words(["a snowman on a horse"])


def test_a_base_that_does_not_say_its_words_has_no_hint(tmp_path):
    assert learned_words(tmp_path) == frozenset()
    write_words(tmp_path, ["tv", "cat", "cat"])
    assert (tmp_path / "words.txt").read_text() == "cat\ntv\n"
    assert learned_words(tmp_path) == {"cat", "tv"}
    (tmp_path / "words.txt").write_bytes(b"\xff\0")
    assert learned_words(tmp_path) == frozenset(), "a damaged file costs the hint only"


def test_words_are_in_lower_case_with_their_apostrophes():
    assert words_of("It's a TV, 3d: naïve_cat") == ["it's", "a", "tv", "3d", "naïve", "cat"]


def test_only_another_size_than_the_training_s_is_said(hints):
    assert hints.other_size(64, 64) == "" and hints.other_size(None, 96) == ""
    assert hints.other_size(64, 96).startswith("Trained at 64 × 64: at 64 × 96 ")
