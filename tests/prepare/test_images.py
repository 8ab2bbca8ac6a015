"""Every kind of image file, written for real and read back: what colour is where."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, ImageFile

from nbs_lib.picturebook.dataset import draw_book
from nbs_lib.prepare.images import ImageError, bucket_sizes, decode, fit, nearest_size, upright

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def stored(image: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def square(data: bytes, resolution: int = 8) -> Image.Image:
    result = fit(upright(decode(data)), resolution, resolution)
    assert result.mode == "RGB" and result.size == (resolution, resolution)
    return result


def near(colour, expected, by: int = 3) -> bool:
    return max(abs(a - b) for a, b in zip(colour, expected, strict=True)) <= by


def test_a_picture_of_the_book_goes_through_unchanged():
    pixels = draw_book(1).images[0]
    through = square(stored(Image.fromarray(pixels), "PNG"), len(pixels))
    assert np.array_equal(np.asarray(through), pixels)


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (2, (7, 0)), (3, (7, 7)), (6, (7, 0)), (8, (0, 7))]
)
def test_exif_rotation_moves_the_corner_where_it_belongs(orientation, corner):
    image = Image.new("RGB", (8, 8), BLUE)
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = square(stored(image, "PNG", exif=exif))
    assert upright.getpixel(corner) == RED
    assert np.asarray(upright)[..., 0].sum() == 255  # and only there


def test_the_square_is_cut_from_the_middle():
    image = Image.new("RGB", (24, 8), RED)
    image.paste(GREEN, (8, 0, 16, 8))
    assert square(stored(image, "PNG")).getcolors() == [(64, GREEN)]


def test_a_long_thin_image_is_not_enlarged():
    assert (
        square(stored(Image.new("RGB", (1, 60_000), GREEN), "PNG"), 512).getpixel((0, 0)) == GREEN
    )


def test_palette_with_transparency_lies_over_white():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *GREEN])
    image.paste(1, (4, 0, 8, 8))
    over = square(stored(image, "PNG", transparency=0))
    assert over.getpixel((0, 0)) == WHITE and over.getpixel((7, 0)) == GREEN


def test_half_transparent_black_is_grey():
    assert near(
        square(stored(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG")).getpixel((3, 3)),
        (127, 127, 127),
        1,
    )


def test_grey_with_alpha_lies_over_white():
    assert square(stored(Image.new("LA", (8, 8), (10, 0)), "PNG")).getpixel((3, 3)) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32768, 127), (65535, 255)])
def test_sixteen_bits_are_scaled_not_clipped(kind, value, expected):
    image = Image.fromarray(np.full((8, 8), value, np.uint16))
    assert near(square(stored(image, kind)).getpixel((3, 3)), (expected,) * 3, 1)


def test_thirty_two_bit_integers_with_values_of_sixteen():
    image = Image.fromarray(np.full((8, 8), 32768, np.int32))
    assert image.mode == "I"
    assert near(square(stored(image, "TIFF")).getpixel((3, 3)), (127,) * 3, 1)


def test_integers_without_a_known_white_are_refused():
    with pytest.raises(ImageError, match="outside 0 to 65535"):
        square(stored(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_red_is_red(kind):
    assert near(
        square(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), kind)).getpixel((3, 3)), RED, 6
    )


def green_ink() -> bytes:
    """Return an ICC profile in which all inks together are black and any others one green."""
    green = bytes([round(50 * 2.55), 128 - 60, 128 + 40])
    table = struct.pack(">4s4x4B", b"mft1", 4, 3, 2, 0) + struct.pack(
        ">9i", *(65536 if i % 4 == 0 else 0 for i in range(9))
    )
    table += bytes(range(256)) * 4 + green * 15 + bytes([0, 128, 128]) + bytes(range(256)) * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 128 + 16, len(table))
    head = struct.pack(
        ">I4x4B4s4s4s12x4s",
        128 + 16 + len(table),
        2,
        0x40,
        0,
        0,
        b"prtr",
        b"CMYK",
        b"Lab ",
        b"acsp",
    )
    white = struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(68, b"\0") + white.ljust(60, b"\0") + tags + table


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(kind):
    red_ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = square(stored(red_ink, kind, icc_profile=green_ink())).getpixel((3, 3))
    assert green > 120 and red < 60 and blue < 90


def test_cmyk_with_a_profile_that_is_not_one_still_opens():
    data = stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF", icc_profile=b"not a profile")
    assert near(square(data).getpixel((3, 3)), RED)


def test_cmyk_with_a_profile_of_another_space_falls_back():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF", icc_profile=profile)
    assert near(square(data).getpixel((3, 3)), RED)


def test_the_first_frame_of_an_animation_is_used():
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    assert (
        square(stored(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((3, 3))
        == RED
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file_is_refused_whatever_another_library_has_set(kind, monkeypatch):
    data = stored(Image.effect_noise((64, 64), 80), kind)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(data[: len(data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "zero bytes"), (b"<html>404</html>", "not an image")]
)
def test_data_that_is_no_image_is_refused(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data)


@pytest.mark.parametrize(
    "limit", [40, 4000]
)  # beyond twice the limit Pillow raises, below it only warns
def test_a_decompression_bomb_is_refused(limit, monkeypatch):
    data = stored(Image.new("1", (80, 80)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match="limit"):
        decode(data)


def test_buckets_have_about_the_pixels_of_the_square_and_two_to_one_at_most():
    buckets = bucket_sizes(512, 64)
    assert (
        (512, 512) in buckets
        and (704, 320) not in buckets
        and (640, 384) in buckets
        and (384, 640) in buckets
    )
    assert all(
        w % 64 == h % 64 == 0 and 0.75 * 512**2 < w * h <= 512**2 and max(w, h) <= 2 * min(w, h)
        for w, h in buckets
    )
    assert nearest_size((3000, 2000), buckets) == (640, 384) and nearest_size(
        (10, 10), buckets
    ) == (
        512,
        512,
    )
    assert nearest_size((1, 100), buckets) == min(buckets, key=lambda size: size[0] / size[1])


def test_nothing_is_squeezed_and_only_one_side_is_cut():
    circle = Image.new("RGB", (300, 200), WHITE)
    ImageDraw.Draw(circle).ellipse((100, 50, 199, 149), fill=RED)
    fitted = np.asarray(fit(circle, 160, 96))
    red = (fitted[..., 1] < 128).nonzero()
    tall, wide = np.ptp(red[0]) + 1, np.ptp(red[1]) + 1
    assert abs(tall - wide) <= 1, "a circle is still a circle"
    assert abs(wide - 100 * 160 / 300) <= 1, "the whole width is there"


def test_colours_of_other_profiles_become_srgb():
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (8, 8), (10, 128, 200))
    assert square(stored(image, "PNG", icc_profile=srgb)).getpixel((0, 0)) == (10, 128, 200)
    assert square(stored(image, "PNG", icc_profile=linear.tobytes())).getpixel((0, 0)) == (
        10,
        128,
        200,
    ), "not an image's own"
    assert square(stored(image, "PNG", icc_profile=wide_gamut())).getpixel((0, 0)) != (10, 128, 200)
    assert near(
        square(stored(image, "PNG", icc_profile=wide_gamut())).getpixel((0, 0)), (128, 10, 200), 40
    )
    solid = image.convert("RGBA")
    results = [
        square(stored(variant, "PNG", icc_profile=wide_gamut())).tobytes()
        for variant in (solid, image)
    ]
    assert results[0] == results[1], "with an alpha channel, too"


def wide_gamut() -> bytes:
    """Return a profile whose red and green primaries are sRGB's green and red."""
    srgb, mine = (name.encode("utf-16-be") for name in ("sRGB", "mine"))
    data = bytearray(
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(srgb, mine)
    )
    tags = {
        bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i
        for i in range(int.from_bytes(data[128:132]))
    }
    red, green = tags[b"rXYZ"] + 4, tags[b"gXYZ"] + 4
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)
