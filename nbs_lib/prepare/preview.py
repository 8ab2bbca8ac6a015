"""The pictures and tables that the notebook shows. Text that users wrote is escaped.

contact_sheet.png and as_trained.png are the cache's. A run has in its folder `prepare/`:

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

from jinja2 import Environment
from matplotlib.figure import Figure
from PIL import Image

from ..files import write_atomic
from .charts import length_histogram, size_histograms
from .examples import Example, Skipped
from .manifest import Manifest
from .sheets import SheetRow, draw_sheet, load_tile, side_by_side, spread_evenly

# JupyterLab aligns cells to the right, which suits numbers alone. Jinja escapes every value, so
# that no markup in a caption or a file name reaches the page.
TABLE = Environment(autoescape=True).from_string(
    """<table><caption style="text-align:left">{{ note }}</caption>
<thead><tr>
{%- for title in titles %}<th scope="col" style="text-align:left">{{ title }}</th>{% endfor -%}
</tr></thead>
<tbody>
{%- for row in rows %}
<tr>{% for cell in row %}<td style="text-align:left">{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table>"""
)
PICTURES = ("sizes.png", "captions.png", "dropped.png", "alike.png")


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


def caption_table(ids: Sequence[str], captions: Sequence[str], limit: int = 12) -> str:
    """Return some examples' captions, and the number of distinct ones, as an HTML table."""
    # The first examples alone would often be of one subfolder.
    total = len(captions)
    rows = spread_evenly(list(zip(ids, captions, strict=True)), limit)
    note = f"{total} examples, {len(set(captions))} distinct captions"
    note += _left_out(len(rows), total)
    return _table(note, ("example", "caption"), rows)


def reasons_table(n_kept: int, dropped: dict[str, int]) -> str:
    """Return how many examples were kept, and dropped for which reason, as an HTML table."""
    if not any(dropped.values()):
        return f"<p>{n_kept} kept.</p>"
    rows = Counter(dropped).most_common()
    note = f"{n_kept} kept, {sum(dropped.values())} dropped"
    return _table(note, ("reason", "dropped"), rows)


def dropped_table(dropped: Sequence[dict[str, str]], total: int) -> str:
    """Return some dropped items with their reasons as an HTML table. total: all dropped items."""
    if not dropped:
        return "<p>Nothing was dropped.</p>"
    columns = itemgetter("id", "reason", "detail")
    rows = list(map(columns, dropped))
    note = f"{total} dropped" + _left_out(len(rows), total)
    return _table(note, ("dropped", "reason", "detail"), rows)


def _left_out(shown_rows: int, total: int) -> str:
    return f"; {shown_rows} shown" if shown_rows < total else ""


def _table(note: str, titles: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Return a table with `note` as its caption; every cell is escaped."""
    return TABLE.render(note=note, titles=titles, rows=rows)
