"""Any image to RGB of a given size: decoded strictly, turned upright, laid over white, cut.

A cache's content depends on this code, so this module's source is part of every cache's key.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from .image_structure import find_excess

WHITE_16 = 65535  # white of a 16-bit image
# Pillow would hand an EPS to Ghostscript, a program that runs the code in it, whatever the file's
# name is. So only these formats are opened.
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")

NO_FILE = "image file cannot be read"
NO_MEMBER = "image cannot be read from its archive"
NO_MEMORY = "image is too large for memory"
# Faults that may be the machine's, and gone the next time.
TRANSIENT_FAULTS = {NO_FILE, NO_MEMBER, NO_MEMORY}
Size = tuple[int, int]


class ImageError(ValueError):
    """An image that cannot be used. Its text is a short reason, equal for equal faults."""


def decode(data: bytes) -> Image.Image:
    """Return the first frame of an image file's bytes, fully decoded, in the file's own mode.

    Errors: ImageError for an empty, unknown, damaged or truncated file, and for one beyond
    Pillow's limit of pixels.
    """
    if not data:
        raise ImageError("image is empty (zero bytes)")
    if fault := find_excess(data):
        raise ImageError(fault)
    try:
        with _strict():
            image = Image.open(BytesIO(data), formats=FORMATS)
            image.load()
    except UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise ImageError(f"image is beyond Pillow's limit of {limit} pixels") from None
    except MemoryError:
        raise ImageError(NO_MEMORY) from None
    except Exception:  # decoders of damaged files raise errors of any kind
        raise ImageError("image is truncated or damaged") from None
    return image


@contextmanager
def _strict() -> Iterator[None]:
    """Use Pillow's own defaults meanwhile: no missing halves filled with grey, no bombs."""
    # Other libraries set this switch for the whole process, and may rely on it afterwards.
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def fit(image: Image.Image, width: int, height: int, position: float = 0.5) -> Image.Image:
    """Return the largest part of an image with these proportions, as RGB of this size (Lanczos).

    Nothing is squeezed: one side is used whole. An RGB image of that size is returned unchanged.

    image: upright.
    width, height: in pixels.
    position: of the part along the side that is cut, from 0 to 1; 0.5 is the middle.
    Errors: ImageError, see `to_rgb`.
    """
    image = to_rgb(image)
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    across = width * scale
    down = height * scale
    left = (image.width - across) * position
    top = (image.height - down) * position
    # Rounding may leave the image by a fraction of a pixel, which `resize` refuses.
    right = min(image.width, left + across)
    bottom = min(image.height, top + down)
    box = (max(0.0, left), max(0.0, top), right, bottom)
    # Cut and resize in one step: resizing first would make a huge picture of a long thin one.
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def crop_position(digest: bytes, seed: int) -> float:
    """Return the position of an image's random crop, from 0 to 1, fixed by digest and seed."""
    drawn_bytes = blake2b(b"crop %d " % seed + digest, digest_size=7).digest()
    return int.from_bytes(drawn_bytes) / 2 ** (8 * len(drawn_bytes))


def bucket_sizes(resolution: int, step: int) -> list[Size]:
    """Return sizes of about resolution² pixels and never more, from 1 : 2 to 2 : 1.

    Widths and heights are multiples of `step` pixels.
    Source: aspect-ratio bucketing, https://github.com/NovelAI/novelai-aspect-ratio-bucketing.
    """
    sizes = {(resolution, resolution)}
    smallest = -(-resolution // (2 * step)) * step
    for side in range(smallest, 2 * resolution + 1, step):
        other = resolution * resolution // side // step * step
        other = min(other, 2 * resolution)
        if other and max(side, other) <= 2 * min(side, other):
            sizes |= {(side, other), (other, side)}
    return sorted(sizes)


def nearest_size(size: Size, sizes: list[Size]) -> Size:
    """Return the size with the nearest proportions on a logarithmic scale; of two, the larger."""
    if len(sizes) == 1:
        return sizes[0]
    target = math.log(size[0] / size[1])

    def distance(candidate: Size) -> tuple:
        width, height = candidate
        difference = abs(math.log(width / height) - target)
        # Rounded because equal proportions may differ in the last bit of their logarithms.
        return round(difference, 9), -width * height, candidate

    return min(sizes, key=distance)


def upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says, unchanged if its EXIF is unreadable."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF is written by many programs, and its readers raise errors of any kind
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit sRGB.

    Transparency is laid over white, 16 bits are scaled to 8, and an ICC profile is applied.
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
    """Return greyscale of 16 bits (white is 65535) or floats (white is 1) as 8 bits."""
    values = np.asarray(image).astype(np.float64)
    white = 1 if image.mode == "F" else WHITE_16
    inside = (values >= 0) & (values <= white)  # false for NaN
    # Clipping would hide that the values' white is not known.
    if not inside.all():
        raise ImageError(f"image of mode {image.mode} has values outside 0 to {white}")
    scaled = np.rint(values * (255 / white))
    return Image.fromarray(scaled.astype(np.uint8))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Return an RGB image in the colours of sRGB, unchanged if it has no other profile."""
    data = image.info.get("icc_profile")
    if not data:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        # A conversion from sRGB to sRGB would change values by rounding.
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError):
        return image  # the profile is broken, or is of another kind of image


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    data = image.info.get("icc_profile")
    if data:
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(data))
            srgb = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # the profile is broken, or is of another kind of image
    return image.convert("RGB")
