"""The pictures drawn during a training, as one strip: a row for each step, beneath the targets."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ...files import files_in, write_atomic
from ...images.grid import LINE_HEIGHT, wrap_text
from ...images.style import INK, font

TARGET = "target.png"  # the row of what the pictures are to become
FILE_NAME = re.compile(r"step-(\d{7,})\.png")
MAX_ROWS = 8  # of the strip
GAP = 6  # pixels between pictures
LABEL_WIDTH = 84  # pixels for the step beside a row
LETTER = 13  # pixels
MIN_WIDTH = 128  # pixels to which small pictures are enlarged


def image_row(images: list[Image.Image]) -> Image.Image:
    """Return pictures of one size in a row; small ones are enlarged by a whole factor."""
    factor = max(1, MIN_WIDTH // images[0].width)
    width = images[0].width * factor
    height = images[0].height * factor
    row = Image.new("RGB", (len(images) * (width + GAP) - GAP, height), "white")
    for column, image in enumerate(images):
        # square pixels, which show what the VAE has decoded
        enlarged = image.resize((width, height), Image.Resampling.NEAREST)
        row.paste(enlarged, (column * (width + GAP), 0))
    return row


def validation_images(folder: Path) -> list[Path]:
    """Return the pictures of a folder, in the order of their steps."""
    return [path for path in files_in(folder) if FILE_NAME.fullmatch(path.name)]


def step_of(path: Path) -> int:
    """Return the step of a picture."""
    return int(FILE_NAME.fullmatch(path.name)[1])


def progress_strip(folder: Path, captions: Sequence[str]) -> Image.Image:
    """Return the rows of a folder as one picture, under the captions and the row of targets.

    captions: of each picture of a row. Of many steps, evenly chosen ones are shown.
    """
    paths = validation_images(folder)
    n_rows = min(MAX_ROWS, len(paths))
    # the first and the last row are always among them
    spacing = (len(paths) - 1) / max(1, n_rows - 1)
    chosen = [paths[round(index * spacing)] for index in range(n_rows)]
    labels = [f"step {step_of(path)}" for path in chosen]
    if (folder / TARGET).is_file():
        chosen = [folder / TARGET, *chosen]
        labels = ["target", *labels]
    rows = [Image.open(path) for path in chosen]
    width, height = rows[0].size
    face = font(LETTER)
    column_width = (width + GAP) // len(captions)
    texts = [wrap_text(caption, face, column_width - GAP) for caption in captions]
    head = GAP + LINE_HEIGHT * max(map(len, texts))
    size = (LABEL_WIDTH + width + GAP, head + len(rows) * (height + GAP) + GAP)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    for column, lines in enumerate(texts):
        corner = (LABEL_WIDTH + column * column_width, GAP)
        pen.multiline_text(corner, "\n".join(lines), INK, face)
    top = head + GAP
    for label, row in zip(labels, rows, strict=True):
        page.paste(row, (LABEL_WIDTH, top))
        pen.text((GAP, top + height // 2), label, INK, face, anchor="lm")
        top += height + GAP
    return page


def write_png(image: Image.Image, path: Path):
    """Write a PNG atomically."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
