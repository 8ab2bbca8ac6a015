"""Each filter by itself, and their order."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from nbs_lib.config import Prepare
from nbs_lib.picturebook.dataset import draw_book
from nbs_lib.prepare.encode.encoder import Cropping, load_picture
from nbs_lib.prepare.examples import Example, InMemory
from nbs_lib.prepare.filters import Filters, ImageInfo, NearDuplicateFilter

IMAGE = InMemory("x", b"")
INFO = ImageInfo(b"1", 64, 64)


def reason(
    info: ImageInfo = INFO, metadata: dict | None = None, caption: str = "a cat", **parameters
) -> str | None:
    filters = Filters(Prepare(**parameters))
    example = Example("e", caption, IMAGE, metadata or {})
    result = filters.before(example) or filters.after(example, info)
    return result[0] if result else None


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        (None, {}),
        ("caption is empty", {"caption": ""}),
        (
            "image is truncated or damaged",
            {"info": ImageInfo(fault="image is truncated or damaged")},
        ),
        ("smaller than min_side", {"info": ImageInfo(b"1", 100, 63), "min_side": 64}),
        (None, {"info": ImageInfo(b"1", 100, 64), "min_side": 64}),
        ("longer than max_aspect", {"info": ImageInfo(b"1", 201, 100), "max_aspect": 2.0}),
        ("longer than max_aspect", {"info": ImageInfo(b"1", 100, 201), "max_aspect": 2.0}),
        (None, {"info": ImageInfo(b"1", 200, 100), "max_aspect": 2.0}),
        ("image_nsfw above max_nsfw", {"metadata": {"image_nsfw": 0.51}, "max_nsfw": 0.5}),
        ("prompt_nsfw above max_nsfw", {"metadata": {"prompt_nsfw": 0.51}, "max_nsfw": 0.5}),
        (None, {"metadata": {"image_nsfw": 0.5, "prompt_nsfw": 0.1}, "max_nsfw": 0.5}),
        ("image_nsfw 2.0: blurred by its source", {"metadata": {"image_nsfw": 2.0}}),
    ],
)
def test_each_filter_drops_its_own_fault(expected, case):
    assert reason(**case) == expected


def test_a_duplicate_names_the_kept_example_by_its_id():
    filters = Filters(Prepare(drop_same_prompts=True))
    examples = [
        ("dropped.png", "a", ImageInfo(fault="damaged")),
        ("first.png", "a", ImageInfo(b"1", 64, 64)),
        ("zweites 猫.png", "b", INFO),
    ]
    examples += [
        (f"{i}.png", f"caption {i}", ImageInfo(b"look %d" % i, 64, 64)) for i in range(2000)
    ]
    examples += [
        ("again.png", "c", INFO),
        ("late.png", "d", ImageInfo(b"look 1999", 64, 64)),
        ("words.png", "b", ImageInfo(b"3", 64, 64)),
    ]
    reasons = {
        name: filters.after(Example(name, caption, IMAGE), info) for name, caption, info in examples
    }
    assert reasons["zweites 猫.png"] == ("same image as another", "first.png")
    assert reasons["again.png"] == ("same image as another", "first.png")
    assert reasons["1999.png"] is None
    assert reasons["late.png"] == ("same image as another", "1999.png")
    assert reasons["words.png"] is None, "a dropped example is not named"
    assert filters.after(Example("words too.png", "b", IMAGE), ImageInfo(b"4", 64, 64)) == (
        "same prompt as another",
        "words.png",
    )


def reasons_of(items: list[tuple[str, ImageInfo]], **parameters) -> list[str | None]:
    filters = Filters(Prepare(**parameters))
    return [
        (filters.after(Example(f"e{i}", caption, IMAGE), info) or (None,))[0]
        for i, (caption, info) in enumerate(items)
    ]


def test_only_kept_examples_have_duplicates():
    small = ImageInfo(b"1", 9, 9)
    large = ImageInfo(b"1", 64, 64)
    items = [("a", small), ("a", large), ("b", large), ("a", ImageInfo(b"2", 64, 64))]
    assert reasons_of(items, min_side=20) == [
        "smaller than min_side",
        None,
        "same image as another",
        None,
    ]
    assert reasons_of(items, drop_duplicates=False) == [None] * 4
    same = "same prompt as another"
    prompts_alone = reasons_of(items, drop_duplicates=False, drop_same_prompts=True)
    assert prompts_alone == [None, same, None, same]


@pytest.mark.parametrize("distance", [0, 3, 7, 16])
def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(distance):
    generator = np.random.default_rng(0)
    hashes = [int(value) for value in generator.integers(0, 2**63, 200)]
    for i, value in enumerate(hashes[:]):  # a copy of each, with about as many bits flipped
        bits = generator.choice(64, max(0, distance + i % 3 - 1), replace=False)
        hashes.append(value ^ sum(1 << int(bit) for bit in bits))
    near = NearDuplicateFilter(distance)
    earlier: list[int] = []
    for i, value in enumerate(hashes):
        expected = any((value ^ other).bit_count() <= distance for other in earlier)
        assert (near.find(value) is not None) == expected
        near.add(Example(str(i), "", IMAGE), ImageInfo(phash=value))
        earlier.append(value)


def test_a_darker_smaller_picture_is_near_and_another_one_is_not():
    first, other = (Image.fromarray(image).resize((256, 256)) for image in draw_book(2).images[:2])
    changed = ImageEnhance.Brightness(first).enhance(0.9).resize((200, 200))
    cropping = Cropping([(64, 64)])
    hashes = [
        load_picture(Loaded(image), cropping, hashed=True)[0].phash
        for image in (first, changed, other)
    ]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 4 < (hashes[0] ^ hashes[2]).bit_count()


class Loaded:
    """A reference to an image that is in memory."""

    def __init__(self, image: Image.Image):
        self.image = image

    def load(self) -> tuple[Image.Image, bytes]:
        return self.image, b""
