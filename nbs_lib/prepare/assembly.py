"""The last step of a build: shards, tables and pictures are linked into one folder, the cache."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from PIL import Image

from ..cache.format import (
    AS_TRAINED,
    CAPTIONS,
    EXAMPLE_SHEET,
    EXAMPLES,
    LATENTS,
    META,
    SHEET,
    Cache,
)
from ..cache.shards import map_shard
from ..config import Prepare
from ..files import atomic_folder, file_hash, hardlink_or_copy, value_hash, write_atomic
from ..images.psnr import psnr
from ..models import StableDiffusion
from .encode.encoder import Cropping, load_picture
from .encode.keys import teacher_request
from .encode.shard_writer import ShardWriter
from .encode.workers import WorkerPool
from .examples import Example
from .sheets import (
    SheetRow,
    contact_sheet,
    draw_sheet,
    load_tile,
    spread_evenly,
    write_example_sheet,
)
from .store.reuse import RowRef

# Examples whose pictures are held against what the VAE returns: all of twenty own ones.
MAX_MEASURED = 24
# The worst of them are shown as they were, as they are cut, and as the VAE returns them.
MAX_SIDE_BY_SIDE = 6
STAGES = ("as it was", "as it is cut", "as the VAE gives it back")
ROWS_AT_ONCE = 4096  # of a table at once


@dataclass
class Assembly:
    """A cache whose shards are known, and examples with images to show, the prior's last."""

    base: StableDiffusion
    config: Prepare
    cropping: Cropping
    part: Path
    writer: ShardWriter
    pool: WorkerPool
    examples: list[Example]

    @property
    def own_examples(self) -> list[Example]:
        """The shown examples of the source, without the prior's."""
        return [example for example in self.examples if not example.prior]

    def contact_sheet(self) -> Image.Image | None:
        """Draw the shown examples as they are cut, with their captions."""
        # A source of prompts has no images.
        if not self.examples:
            return None
        captions = [example.caption for example in self.examples]
        pictures = self._pictures(self.examples)
        return contact_sheet(pictures, captions, len(self.own_examples))

    def key(self) -> str:
        """Return a hash over all that changes the content of the cache: 64 hex digits."""
        config = self.config
        parameters = [
            self.writer.spaces,
            self.base.name,
            config.revision,
            self.base.hash,
            config.resolution,
            config.negative_prompt,
            teacher_request(config),
            config.buckets,
        ]
        digest = sha256(value_hash(parameters).encode())
        for name in (EXAMPLES, CAPTIONS):
            # Rows are hashed, not files: another version of Arrow writes other bytes.
            with pyarrow.parquet.ParquetFile(self.part / name) as table:
                for rows in table.iter_batches(ROWS_AT_ONCE):
                    digest.update(value_hash(rows.to_pydict()).encode())
        return digest.hexdigest()

    def assemble(self, folder: Path, key: str, sheet: Image.Image | None) -> Cache:
        """Link all files into a folder that appears whole. sheet: see `contact_sheet`."""
        files = dict(self.writer.files.paths)
        for name in (EXAMPLES, CAPTIONS):
            files[name] = self.part / name
        # A damaged cache in its place is replaced.
        with atomic_folder(folder, replace=True) as new:
            for name, path in files.items():
                (new / name).parent.mkdir(exist_ok=True)
                hardlink_or_copy(path, new / name)
            reconstruction = {}
            if sheet:
                sheet.save(new / SHEET)
                reconstruction = self._write_stages_sheet(new)
                self._write_example_sheet(new)
            # Written last, with the hash of each other file.
            metadata = self._metadata(key, new) | {"reconstruction": reconstruction}
            text = json.dumps(metadata, indent=1, ensure_ascii=False) + "\n"
            write_atomic(new / META, text)
        return Cache(folder, metadata)

    def _metadata(self, key: str, folder: Path) -> dict[str, Any]:
        writer = self.writer
        shapes = Counter()
        for shard in writer.shards:
            shape = " ".join(map(str, shard["shape"]))
            shapes[shape] += shard["rows"]
        # Sorted, because a cache that is built again has to be the same, byte for byte.
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            "key": key,
            "base": self.base.name,
            "revision": self.config.revision,
            "base_hash": self.base.hash,
            "resolution": self.config.resolution,
            "examples": shapes.total(),
            "captions": sum(shard["rows"] for shard in writer.captions.shards),
            "captions_cut": writer.captions.n_cut,
            "text_shape": writer.text_shape(),
            "shapes": dict(shapes),
            "shards": writer.shards,
            "texts": writer.captions.shards,
            "negative": self.config.negative_prompt,
            "answers": teacher_request(self.config),
            "images": any(name.startswith(f"{LATENTS}/") for name in writer.files.paths),
            "spaces": writer.spaces,
            "files": {path.relative_to(folder).as_posix(): file_hash(path) for path in paths},
        }

    def _write_stages_sheet(self, folder: Path) -> dict[str, float]:
        """Draw images as they were, as they are cut, and as the VAE decodes their latents.

        Return the PSNR in dB of more images than are shown, by example, the worst first.
        """
        # The prior's are shown here only if there are no others.
        candidates = spread_evenly(self.own_examples or self.examples, MAX_MEASURED)
        pictures = [load_picture(example.image, self.cropping)[1] for example in candidates]
        # An image may be gone by now, and then there is nothing to measure.
        examples = [example for example, cut in zip(candidates, pictures, strict=True) if cut]
        cuts = list(filter(None, pictures))
        if not examples:
            return {}
        decoded = self._decode_latents(examples, folder)
        ratios = list(map(psnr, cuts, decoded))
        worst_first = sorted(range(len(examples)), key=ratios.__getitem__)
        rows = []
        for i in worst_first[:MAX_SIDE_BY_SIDE]:
            notes = ([], [], [f"{ratios[i]:.1f} dB PSNR"])
            rows.append(SheetRow((load_tile(examples[i]), cuts[i], decoded[i]), captions=notes))
        rows[0] = replace(rows[0], titles=STAGES)
        draw_sheet(rows).save(folder / AS_TRAINED)
        # Rounded: the last bits are another machine's.
        return {examples[i].id: round(ratios[i], 1) for i in worst_first}

    def _write_example_sheet(self, folder: Path):
        """Draw the first example on its way from the image to latents and back."""
        [example, *_] = self.examples
        info, cut = load_picture(example.image, self.cropping)
        original = load_tile(example)
        # The image may be gone by now.
        if cut is None or original is None:
            return
        [(path, row)] = self._latent_rows([example], folder)
        [decoded] = self._decode_latents([example], folder)
        latents = map_shard(path)[LATENTS][row].numpy()
        size = (info.width, info.height)
        target = folder / EXAMPLE_SHEET
        write_example_sheet(target, original, size, cut, latents, decoded, example.caption)

    def _pictures(self, examples: list[Example]) -> list[Image.Image]:
        """Return images as they are cut; a grey one for an image that is gone by now."""
        # Loaded again: workers hold pictures for a short time, and most are not shown.
        pictures = [load_picture(example.image, self.cropping)[1] for example in examples]
        square = (self.config.resolution, self.config.resolution)
        return [picture or Image.new("RGB", square, "grey") for picture in pictures]

    def _decode_latents(self, examples: list[Example], folder: Path) -> list[Image.Image]:
        """Return the pictures that the VAE makes of examples' latents in the folder of a cache."""
        ticket = self.pool.submit(0, "decode_latents", self._latent_rows(examples, folder))
        return self.pool.result(ticket)

    def _latent_rows(self, examples: list[Example], folder: Path) -> list[RowRef]:
        """Return the shard and the row of examples' latents in the folder of a cache."""
        # The table is read in batches, as it may have millions of rows.
        ids = [example.id for example in examples]
        shown_ids = pyarrow.array(ids)
        rows = {}
        with pyarrow.parquet.ParquetFile(folder / EXAMPLES) as table:
            for batch in table.iter_batches(
                ROWS_AT_ONCE, columns=["id", "shard", "row", "flipped"]
            ):
                matches = batch.filter(pyarrow.compute.is_in(batch["id"], shown_ids))
                for row in matches.to_pylist():
                    # The mirrored copy has the same id.
                    if not row["flipped"]:
                        name = self.writer.shards[row["shard"]]["name"]
                        path = folder / LATENTS / f"{name}.safetensors"
                        rows[row["id"]] = (path, row["row"])
        return [rows[id] for id in ids]
