"""Each filter by itself, and what comes before what."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from nbs_lib.config import Prepare
from nbs_lib.picturebook.dataset import draw_book
from nbs_lib.prepare.encode.encoder import look_at
from nbs_lib.prepare.examples import Example, InMemory
from nbs_lib.prepare.filters import Filters, ImageInfo, NearDuplicateFilter
from nbs_lib.prepare.hashes import Hashes

PLACE, PLAIN = InMemory("x", b""), ImageInfo(b"1", 64, 64)


def reason(
    look: ImageInfo = PLAIN, known: dict | None = None, caption: str = "a cat", **how
) -> str | None:
    filters, example = Filters(Prepare(**how)), Example("e", caption, PLACE, known or {})
    found = filters.before(example) or filters.after(example, look)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (None, {}),
        ("caption is empty", {"caption": ""}),
        (
            "image is truncated or damaged",
            {"look": ImageInfo(fault="image is truncated or damaged")},
        ),
        ("smaller than min_side", {"look": ImageInfo(b"1", 100, 63), "min_side": 64}),
        (None, {"look": ImageInfo(b"1", 100, 64), "min_side": 64}),
        ("longer than max_aspect", {"look": ImageInfo(b"1", 201, 100), "max_aspect": 2.0}),
        ("longer than max_aspect", {"look": ImageInfo(b"1", 100, 201), "max_aspect": 2.0}),
        (None, {"look": ImageInfo(b"1", 200, 100), "max_aspect": 2.0}),
        ("image_nsfw above max_nsfw", {"known": {"image_nsfw": 0.51}, "max_nsfw": 0.5}),
        ("prompt_nsfw above max_nsfw", {"known": {"prompt_nsfw": 0.51}, "max_nsfw": 0.5}),
        (None, {"known": {"image_nsfw": 0.5, "prompt_nsfw": 0.1}, "max_nsfw": 0.5}),
        ("image_nsfw 2.0: blurred by its source", {"known": {"image_nsfw": 2.0}}),
    ],
)
def test_each_filter_drops_what_it_is_for(wanted, given):
    assert reason(**given) == wanted


def test_a_duplicate_names_the_one_that_was_kept_by_its_id():
    filters = Filters(Prepare(drop_same_prompts=True))
    given = [
        ("dropped.png", "a", ImageInfo(fault="damaged")),
        ("first.png", "a", ImageInfo(b"1", 64, 64)),
        ("zweites 猫.png", "b", PLAIN),
    ]
    given += [(f"{i}.png", f"caption {i}", ImageInfo(b"look %d" % i, 64, 64)) for i in range(2000)]
    given += [
        ("again.png", "c", PLAIN),
        ("late.png", "d", ImageInfo(b"look 1999", 64, 64)),
        ("words.png", "b", ImageInfo(b"3", 64, 64)),
    ]
    said = {
        name: filters.after(Example(name, caption, PLACE), look) for name, caption, look in given
    }
    assert said["zweites 猫.png"] == ("same image as another", "first.png") == said["again.png"]
    assert said["late.png"] == ("same image as another", "1999.png") and said["1999.png"] is None
    assert said["words.png"] is None, "what was dropped is not named"
    assert filters.after(Example("words too.png", "b", PLACE), ImageInfo(b"4", 64, 64)) == (
        "same prompt as another",
        "words.png",
    )


def kept(looks: list[tuple[str, ImageInfo]], **how) -> list[str | None]:
    filters = Filters(Prepare(**how))
    return [
        (filters.after(Example(f"e{i}", caption, PLACE), look) or (None,))[0]
        for i, (caption, look) in enumerate(looks)
    ]


def test_duplicates_are_of_what_was_kept():
    small, same = ImageInfo(b"1", 9, 9), ImageInfo(b"1", 64, 64)
    looks = [("a", small), ("a", same), ("b", same), ("a", ImageInfo(b"2", 64, 64))]
    assert kept(looks, min_side=20) == [
        "smaller than min_side",
        None,
        "same image as another",
        None,
    ]
    assert kept(looks, drop_duplicates=False) == [None] * 4
    assert kept(looks, drop_duplicates=False, drop_same_prompts=True) == [
        None,
        "same prompt as another",
        None,
    ] + ["same prompt as another"]


@pytest.mark.parametrize("distance", [0, 3, 7, 16])
def test_near_finds_what_comparing_all_pairs_finds(distance):
    generator = np.random.default_rng(0)
    hashes = [int(each) for each in generator.integers(0, 2**63, 200)]
    for i, each in enumerate(hashes[:]):  # a copy of each, with about as many bits flipped
        flipped = generator.choice(64, max(0, distance + i % 3 - 1), replace=False)
        hashes.append(each ^ sum(1 << int(bit) for bit in flipped))
    near, seen = NearDuplicateFilter(distance), []
    for i, each in enumerate(hashes):
        found = near.find(each)
        assert (found is not None) == any((each ^ other).bit_count() <= distance for other in seen)
        near.keep(Example(str(i), "", PLACE), ImageInfo(phash=each))
        seen.append(each)


def test_a_picture_made_darker_smaller_and_jpeg_is_near_and_another_is_not():
    first, other = (Image.fromarray(each).resize((256, 256)) for each in draw_book(2).images[:2])
    changed = ImageEnhance.Brightness(first).enhance(0.9).resize((200, 200))
    looks = [look_at(Of(image), [(64, 64)], hashed=True)[0] for image in (first, changed, other)]
    assert (
        (looks[0].phash ^ looks[1].phash).bit_count()
        <= 4
        < (looks[0].phash ^ looks[2].phash).bit_count()
    )


class Of:
    """The place of an image that is there already."""

    def __init__(self, image: Image.Image):
        self.image = image

    def look(self) -> tuple[Image.Image, bytes]:
        return self.image, b""


def test_a_set_of_hashes_is_a_set():
    generator = np.random.default_rng(0)
    values = [0, 1, 2**64 - 1, *(int(each) for each in generator.integers(0, 2**63, 5000))] * 2
    ours, theirs = Hashes(), set()
    for value in values:
        assert (value in ours) == (value in theirs or value == 1 and 0 in theirs), "0 is kept as 1"
        ours.add(value)
        theirs.add(value)
    assert len(ours) == len(theirs) - 1 and -3 not in ours
    ours.add(-3)
    assert -3 in ours and 2**64 - 3 in ours
