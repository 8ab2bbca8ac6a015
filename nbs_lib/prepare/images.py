"""Any image to RGB of a wanted size: decoded strictly, turned upright, laid over white, cut.

What is done here decides what a cache holds, so this module's source is part of every cache's key.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from .image_structure import excess

WHITE_16 = 65535  # white of a 16-bit image
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What is opened, whatever its file is called: Pillow would hand an EPS to Ghostscript, a program that runs what is in it."""

NO_FILE, NO_MEMBER, NO_MEMORY = (
    "image file cannot be read",
    "image cannot be read from its archive",
    "image is too large for memory",
)
PASSING = {NO_FILE, NO_MEMBER, NO_MEMORY}
"""Faults that may be the machine's, and gone the next time."""


class ImageError(ValueError):
    """An image that cannot be used. Its text is a short reason, the same for every image with that fault."""


def decode(data: bytes) -> Image.Image:
    """The first frame of an image file's bytes, fully decoded, in the file's own mode.

    Errors: ImageError for an empty, unknown, damaged or truncated file, and for one beyond Pillow's limit of pixels.
    """
    if not data:
        raise ImageError("image is empty (zero bytes)")
    if fault := excess(data):
        raise ImageError(fault)
    try:
        with _strict():
            image = Image.open(BytesIO(data), formats=FORMATS)
            image.load()
    except UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"image is beyond Pillow's limit of {Image.MAX_IMAGE_PIXELS:,} pixels"
        ) from None
    except MemoryError:
        raise ImageError(NO_MEMORY) from None
    except Exception:  # decoders of damaged files raise whatever they stumble over
        raise ImageError("image is truncated or damaged") from None
    return image


@contextmanager
def _strict() -> Iterator[None]:
    """Pillow as it is by default, whatever another library has set: no missing halves filled in grey, no bombs."""
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def fit(image: Image.Image, width: int, height: int, place: float = 0.5) -> Image.Image:
    """The largest part of an upright image with these proportions, as RGB of this size in pixels (Lanczos).

    place: where the part lies along the side that is cut, from 0 to 1; 0.5 is the middle. Nothing is squeezed: of one side
    all is kept. An RGB image of that size goes through unchanged, bit for bit. Errors: ImageError, see `to_rgb`.
    """
    image = to_rgb(image)
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    across, down = width * scale, height * scale
    left, top = (image.width - across) * place, (image.height - down) * place
    # cut and resize in one: resizing first would make a huge picture of a long thin one
    box = (
        max(0.0, left),
        max(0.0, top),
        min(image.width, left + across),
        min(image.height, top + down),
    )
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def place_of(digest: bytes, seed: int) -> float:
    """Where an image is cut at random, from 0 to 1: always there for the same image and seed."""
    drawn = blake2b(b"crop %d " % seed + digest, digest_size=7).digest()
    return int.from_bytes(drawn) / 2 ** (8 * len(drawn))


def sizes(resolution: int, step: int) -> list[tuple[int, int]]:
    """Widths and heights, multiples of `step` pixels, of about resolution² pixels and never more: from 1 : 2 to 2 : 1.

    Source: aspect-ratio bucketing, https://github.com/NovelAI/novelai-aspect-ratio-bucketing.
    """
    found = set()
    for side in range(-(-resolution // (2 * step)) * step, 2 * resolution + 1, step):
        other = min(resolution * resolution // side // step * step, 2 * resolution)
        if other and max(side, other) <= 2 * min(side, other):
            found |= {(side, other), (other, side)}
    return sorted(found | {(resolution, resolution)})


def nearest(size: tuple[int, int], among: list[tuple[int, int]]) -> tuple[int, int]:
    """The size whose proportions are nearest to an image's, on a logarithmic scale; the larger one of two as near."""
    of = math.log(size[0] / size[1])
    if len(among) == 1:
        return among[0]
    return min(
        among,
        key=lambda each: (
            round(abs(math.log(each[0] / each[1]) - of), 9),
            -each[0] * each[1],
            each,
        ),
    )


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; one whose EXIF cannot be read stays as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF is written by many hands, and its readers raise as many kinds of error
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit sRGB: transparency over white, 16 bits scaled to 8, through the image's ICC profile where it has one.

    Errors: ImageError for a mode that has no meaning as a picture without more knowledge.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return _to_srgb(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bit(image)
    if image.mode == "CMYK":
        return _cmyk_to_rgb(image)
    try:
        if not image.has_transparency_data:
            return _to_srgb(image.convert("RGB"))
        alpha = image.convert("RGBA").getchannel("A")
        coloured = _to_srgb(image.convert("RGBA").convert("RGB"))
        white = Image.new("RGB", image.size, "white")
        return Image.composite(coloured, white, alpha)
    except ValueError:
        raise ImageError(f"image of mode {image.mode} has no way to RGB") from None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits (white is 65535) or of floating-point numbers (white is 1) as 8 bits."""
    values = np.asarray(image).astype(np.float64)
    white = 1 if image.mode == "F" else WHITE_16
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= white):
        raise ImageError(f"image of mode {image.mode} has values outside 0 to {white}")
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def _to_srgb(image: Image.Image) -> Image.Image:
    """An RGB image in the colours of sRGB; one whose profile says nothing else stays as it is, bit for bit."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    try:
        own = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return image
        return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError):
        return image  # a profile that cannot be used, or is of another kind of image, is as good as none


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
            return ImageCms.profileToProfile(
                image, own, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile that cannot be used is as good as none
    return image.convert("RGB")
