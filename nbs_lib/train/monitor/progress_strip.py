"""The pictures drawn during a training, as one strip: a row for each step, the first at step 0."""

import io
import re
from pathlib import Path

from PIL import Image, ImageDraw

from ...files import files_in, write_atomic

FILE_NAME = re.compile(r"step-(\d{7,})\.png")
MAX_ROWS = 8  # of the strip
GAP = 6  # pixels between pictures
LABEL_WIDTH = 76  # pixels for the step beside a row
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


def progress_strip(folder: Path) -> Image.Image:
    """Return the rows of a folder as one picture with their steps; of many, evenly chosen ones."""
    paths = validation_images(folder)
    n_rows = min(MAX_ROWS, len(paths))
    # the first and the last row are always among them
    spacing = (len(paths) - 1) / max(1, n_rows - 1)
    chosen = [paths[round(index * spacing)] for index in range(n_rows)]
    rows = [Image.open(path) for path in chosen]
    width, height = rows[0].size
    size = (LABEL_WIDTH + width + GAP, n_rows * (height + GAP) + GAP)
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for index, row in enumerate(rows):
        top = GAP + index * (height + GAP)
        page.paste(row, (LABEL_WIDTH, top))
        draw.text((GAP, top + height // 2), f"step {step_of(chosen[index])}", "black")
    return page


def write_png(image: Image.Image, path: Path):
    """Write a PNG atomically."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
