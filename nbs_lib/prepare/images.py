"""Any image to an RGB square: decoded strictly, turned upright, laid over white, cut from the middle.

What is done here decides what a cache holds, so this module's source is part of every cache's key.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

WHITE_16 = 65535  # white of a 16-bit image


class ImageError(ValueError):
    """An image that cannot be used. Its text is a short reason, the same for every image with that fault."""


def decode(data: bytes) -> Image.Image:
    """The first frame of an image file's bytes, fully decoded, in the file's own mode.

    Errors: ImageError for an empty, unknown, damaged or truncated file, and for one beyond Pillow's limit of pixels.
    """
    if not data:
        raise ImageError("image is empty (zero bytes)")
    try:
        with _strict():
            image = Image.open(BytesIO(data))
            image.load()
    except UnidentifiedImageError:
        raise ImageError("not an image that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"image is beyond Pillow's limit of {Image.MAX_IMAGE_PIXELS:,} pixels") from None
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


def to_square(image: Image.Image, resolution: int) -> Image.Image:
    """The largest centred square of an image, upright, as RGB of `resolution` pixels a side (Lanczos).

    An RGB image of that size goes through unchanged, bit for bit. Errors: ImageError, see `to_rgb`.
    """
    image = to_rgb(upright(image))
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    # cut and resize in one: resizing first would make a huge picture of a long thin one
    box = (left, top, left + side, top + side)
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; one whose EXIF cannot be read stays as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF is written by many hands, and its readers raise as many kinds of error
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: transparency over white, 16 bits scaled to 8, CMYK through its ICC profile where it has one.

    Errors: ImageError for a mode that has no meaning as a picture without more knowledge.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bit(image)
    if image.mode == "CMYK":
        return _cmyk_to_rgb(image)
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    except ValueError:
        raise ImageError(f"image of mode {image.mode} has no way to RGB") from None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits (white is 65535) or of floating-point numbers (white is 1) as 8 bits."""
    values = np.asarray(image).astype(np.float64)
    white = 1 if image.mode == "F" else WHITE_16
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= white):
        raise ImageError(f"image of mode {image.mode} has values outside 0 to {white}")
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
            return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile that cannot be used is as good as none
    return image.convert("RGB")
