"""The pictures and tables that the notebook shows. Text that users wrote is escaped.

contact_sheet.png, as_trained.png and example.png are the cache's. A run has in its folder
`prepare/`:

    sizes.png     histograms of image sizes and proportions
    captions.png  histogram of captions' tokens, beside how many the text encoder reads
    dropped.png   for each reason some of the images that were dropped for it
    alike.png     images that look alike, side by side
"""

from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from ..cache.format import EXAMPLE_SHEET, Cache
from ..files import write_atomic
from ..images.html import data_url, html_table
from ..images.psnr import POOR
from ..models import find_base
from .charts import length_histogram, size_histograms
from .examples import Example, Skipped
from .manifest import Manifest
from .sheets import SheetRow, draw_sheet, load_tile, side_by_side, spread_evenly

PICTURES = ("sizes.png", "captions.png", "dropped.png", "alike.png")
# Alternative texts, by the stem of a picture's file.
ALT = {
    "contact_sheet": "Some of the pictures as they are cut, with their captions",
    "as_trained": "Images as they were, as they are cut, and as the VAE returns them, worst first",
    "sizes": "How many images there are of each size and of each proportion",
    "captions": "How many tokens the captions have, beside what the text encoder reads",
    "dropped": "Some of the images that were dropped, a row for each reason",
    "alike": "Images that look alike, side by side",
}


def draw_previews(folder: Path, manifest: Manifest, tokens: Counter[int], token_limit: int):
    """Draw the pictures of a run's folder `prepare/`, and remove those with nothing to show.

    tokens: captions by their number of tokens.
    token_limit: tokens that the text encoder reads.
    """
    sizes = size_histograms(manifest.sizes) if manifest.sizes else None
    lengths = length_histogram(tokens, token_limit) if tokens else None
    dropped = _dropped_sheet(manifest.dropped_items)
    look_alikes = _look_alike_sheet(manifest.look_alikes)
    # A picture of an earlier try would show items of another source.
    for name, picture in zip(PICTURES, (sizes, lengths, dropped, look_alikes), strict=True):
        if picture is None:
            (folder / name).unlink(missing_ok=True)
        else:
            # Always a new file: the old one may be a link that another run shares.
            write_atomic(folder / name, _png(picture))


def _png(picture: Figure | Image.Image) -> bytes:
    buffer = BytesIO()
    if isinstance(picture, Figure):
        # Without matplotlib's version in it, an equal figure is an equal file.
        picture.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()


def _dropped_sheet(dropped_items: dict[str, list[Skipped]]) -> Image.Image | None:
    rows = []
    for reason, items in dropped_items.items():
        # Captions and lines of tables have no image, and damaged images no tile.
        tiles = list(filter(None, map(load_tile, items)))
        if tiles:
            rows.append(SheetRow(tiles, titles=(reason, "", "", "")))
    return draw_sheet(rows) if rows else None


def _look_alike_sheet(pairs: list[tuple[Example, Example]]) -> Image.Image | None:
    rows = [tuple(map(load_tile, pair)) for pair in pairs]
    return side_by_side(rows, ("look alike", "")) if rows else None


def figure_images(pictures: Sequence[Path], *names: str) -> list[Any]:
    """Return the pictures with these stems as IPython images. pictures: those that exist."""
    # Only a notebook displays them.
    from IPython.display import Image as Picture

    by_stem = {path.stem: path for path in pictures}
    return [Picture(by_stem[name], alt=ALT[name]) for name in names if name in by_stem]


def first_example(cache: Cache) -> str:
    """Return an example on its way to what training reads, as HTML: its image, and its caption."""
    path = cache.folder / EXAMPLE_SHEET
    base = find_base(cache.meta["base"], cache.meta.get("revision", ""))
    if not path.exists():
        # A source of prompts has no images, and a cache of an earlier version no such picture.
        return token_table(cache.captions[0], base.tokenizer(), cache.meta["text_shape"])
    with Image.open(path) as sheet:
        caption = sheet.text["caption"]
    alt = "An image, as it is cut, its latents, and decoded again, with their sizes"
    picture = Markup('<img src="{}" alt="{}">').format(data_url(path.read_bytes()), alt)
    return f"{picture}{token_table(caption, base.tokenizer(), cache.meta['text_shape'])}"


def token_table(caption: str, tokenizer: Any, text_shape: list[int]) -> str:
    """Return a caption as tokens and as numbers, as an HTML table.

    tokenizer: a CLIPTokenizer.
    text_shape: [tokens, width] of its embedding.
    """
    length, width = text_shape
    ids = tokenizer(caption, truncation=True, max_length=length).input_ids
    tokens = tokenizer.convert_ids_to_tokens(ids)
    # CLIP's tokens name the end of a word, which a space does as well.
    cells = [Markup("<code>{}</code>").format(token.removesuffix("</w>")) for token in tokens]
    padding = f" and {length - len(ids)} of padding" if len(ids) < length else ""
    rows = [
        ("caption", caption),
        (f"{len(ids)} tokens{padding}", Markup(" ").join(cells)),
        ("their numbers", " ".join(map(str, ids))),
        ("embedding", f"{length} × {width} = {length * width:,} numbers, from the text encoder"),
    ]
    return html_table("", ("", "the caption of this example"), rows)


def caption_table(ids: Sequence[str], captions: Sequence[str], limit: int = 12) -> str:
    """Return some examples' captions, and the number of distinct ones, as an HTML table."""
    # The first examples alone would often be of one subfolder.
    total = len(captions)
    rows = spread_evenly(list(zip(ids, captions, strict=True)), limit)
    note = f"{total} examples, {len(set(captions))} distinct captions"
    note += _left_out(len(rows), total)
    return html_table(note, ("example", "caption"), rows)


def reconstruction_table(cache: Cache, limit: int = 12) -> str:
    """Return the PSNR of pictures against what the VAE makes of them, as an HTML table.

    It has the worst ones, and a warning before it if the VAE loses much of some.

    limit: of rows.
    """
    ratios = cache.meta["reconstruction"]
    if not ratios:
        return ""
    rows = [(id, f"{ratio:.1f} dB") for id, ratio in ratios.items()][:limit]
    note = f"{len(ratios)} measured{_left_out(len(rows), len(ratios))}"
    table = html_table(note, ("picture", "PSNR"), rows)
    warning = poor_reconstruction(cache)
    return f"{Markup('<p><b>{}</b></p>').format(warning)}{table}" if warning else table


def poor_reconstruction(cache: Cache) -> str:
    """Return a sentence on the pictures of which the VAE loses much; empty if there are none."""
    ratios = cache.meta["reconstruction"]
    poor = [id for id, ratio in ratios.items() if ratio < POOR]
    if not poor:
        return ""
    return (
        f"The VAE gives {len(poor)} of {len(ratios)} measured pictures back with less than "
        f"{POOR:g} dB (the worst: {poor[0]!r}, {ratios[poor[0]]:.1f} dB), and no training brings "
        "back what it loses. Use a base whose VAE knows such pictures, or a larger resolution."
    )


def reasons_table(n_kept: int, dropped: dict[str, int]) -> str:
    """Return how many examples were kept, and dropped for which reason, as an HTML table."""
    if not any(dropped.values()):
        return f"<p>{n_kept} kept.</p>"
    rows = Counter(dropped).most_common()
    note = f"{n_kept} kept, {sum(dropped.values())} dropped"
    return html_table(note, ("reason", "dropped"), rows)


def dropped_table(dropped: Sequence[dict[str, str]], total: int) -> str:
    """Return some dropped items with their reasons as an HTML table. total: all dropped items."""
    if not dropped:
        return "<p>Nothing was dropped.</p>"
    columns = itemgetter("id", "reason", "detail")
    rows = list(map(columns, dropped))
    note = f"{total} dropped" + _left_out(len(rows), total)
    return html_table(note, ("dropped", "reason", "detail"), rows)


def _left_out(shown_rows: int, total: int) -> str:
    return f"; {shown_rows} shown" if shown_rows < total else ""
