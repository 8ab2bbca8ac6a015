"""The shards of a cache that is being made: each is found where it is already, or written by the encoding processes.

A shard is named by what it holds, so one that is there needs no work: after a kill, after a change elsewhere, or when another
cache has it.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from PIL import Image

from ...cache.format import (
    ANSWERS,
    CAPTION_COLUMNS,
    CAPTIONS,
    EXAMPLE_COLUMNS,
    EXAMPLES,
    LATENTS,
    TEXTS,
    UNCONDITIONAL,
)
from ...cache.shards import map_shard
from ...config import Prepare
from ...models import StableDiffusion
from ...run.progress_bar import progress_bar
from ..examples import Example, ImageRef
from ..filters import ImageInfo
from ..hashes import hash64
from ..images import nearest, sizes
from ..manifest import Manifest, Table
from ..store.reuse import ReusableShards
from . import workers as processes
from .encoder import Size, Task, is_stored, look_at
from .keys import hash128, key_spaces, row_key

Chosen = tuple[int, Example, ImageInfo]
"""An example that is kept: its place in its chunk, and what its image looks like."""
TEXT_ROWS = 256  # captions of a shard


class ShardWriter:
    """Takes examples, and has made of them what is nowhere yet. part: a folder to write in, with what an earlier try left.

    shards, texts: as cache.json has them; files: where each file of the cache is by now, by its place in it.
    """

    def __init__(
        self, config: Prepare, base: StableDiffusion, store: Path, part: Path, notes: Manifest
    ):
        self.config, self.base, self.part, self.notes = config, base, part, notes
        self.spaces = key_spaces(base, config)
        self.known = {
            kind: ReusableShards(store, kind, self.spaces[kind])
            for kind in (LATENTS, TEXTS, ANSWERS)
        }
        self.square, step = (config.resolution, config.resolution), config.resolution // 8
        step = max(1, step // base.vae_scale_factor) * base.vae_scale_factor
        self.sizes = sizes(config.resolution, step) if config.buckets else [self.square]
        self.crop = config.seed if config.crop == "random" else None
        self.members = processes.worker_count(config.num_processes)
        self.shards: list[dict[str, Any]] = []
        self.texts: list[dict[str, Any]] = []
        self.files: dict[str, Path] = {}
        self.encoded = self.captions_cut = 0
        self._team: processes.WorkerPool | None = None
        self._work: deque[tuple[int, Callable]] = deque()
        self._tokenizer = base.tokenizer()
        self._captions: dict[int, int] = {}
        self._waiting: list[str] = []
        self._tables = {
            EXAMPLES: Table(part / EXAMPLES, EXAMPLE_COLUMNS),
            CAPTIONS: Table(part / CAPTIONS, CAPTION_COLUMNS),
        }

    def look(self, chunk: int, places: dict[int, ImageRef], hashed: bool) -> int:
        """Have images of a chunk looked at, their perceptual hashes taken or not; the number of the reply."""
        return self._ask(chunk, "look", chunk, places, self.sizes, hashed, self.crop)

    def reply(self, number: int) -> dict[int, ImageInfo]:
        return self._team.reply(number)

    def put(self, chunk: int, chosen: Sequence[Chosen], looked: Collection[int]):
        """Take what is kept of a chunk. looked: the places of images that were looked at just now: a process has them."""
        groups: dict[Size | None, list[tuple[int, Example, ImageInfo, bool]]] = {}
        for i, example, look in chosen:
            size = (
                nearest((look.width, look.height), self.sizes)
                if example.image is not None
                else None
            )
            for flipped in (False, True) if self.config.flip and size else (False,):
                groups.setdefault(size, []).append((i, example, look, flipped))
        tasks, places = [], {}
        for size, rows in sorted(groups.items(), key=lambda each: each[0] or (0, 0)):
            if task := self._shard(size, rows):
                tasks.append(task)
                wanted = {
                    place
                    for k, (place, _) in enumerate(task.rows)
                    if k not in task.taken and place not in looked
                }
                places |= {
                    i: (example.image, look.digest) for i, example, look, _ in rows if i in wanted
                }
        self.encoded += sum(len(task.rows) - len(task.taken) for task in tasks)
        if tasks or looked:  # without tasks too, to let go of the pictures
            self._do(chunk, "encode", chunk, tasks, places, self.sizes, self.crop)

    def flush_texts(self):
        """Have the captions' embeddings made that wait for others to fill their shard."""
        texts, self._waiting = self._waiting, []
        if texts:
            self._put_texts(texts)

    def finish(self):
        """Make the rest of it."""
        self.flush_texts()
        self._find_unconditional()
        self._settle()
        for table in self._tables.values():
            table.close()
        if self.config.teacher_cache != "none":
            self._find_answers()

    def forget(self):
        """Leave no table; shards stay for the next try."""
        for table in self._tables.values():
            table.drop()

    def end(self):
        """Let the processes go."""
        team, self._team = self._team, None
        if team:
            team.end()

    def pictures(self, chosen: Sequence[tuple[Example, ImageInfo]]) -> list[Image.Image]:
        """Of examples with images, as they are cut."""
        found = [look_at(each.image, self.sizes, crop=self.crop)[1] for each, _ in chosen]
        return [picture or Image.new("RGB", self.square, "grey") for picture in found]

    def decoded(
        self, chosen: Sequence[tuple[Example, ImageInfo]], folder: Path
    ) -> list[Image.Image]:
        """What the VAE makes of the latents of examples. folder: where the shards are by now."""
        ids, places = pyarrow.array([each.id for each, _ in chosen]), {}
        with pyarrow.parquet.ParquetFile(folder / EXAMPLES) as table:
            for rows in table.iter_batches(4096, columns=["id", "shard", "row", "flipped"]):
                found = rows.filter(pyarrow.compute.is_in(rows["id"], ids)).to_pylist()
                places |= {
                    each["id"]: (each["shard"], each["row"])
                    for each in found
                    if not each["flipped"]
                }
        where = [places[each.id] for each, _ in chosen]
        question = self._ask(
            0, "decode", [(self._latents(folder, shard), row) for shard, row in where]
        )
        return self._team.reply(question)

    def _latents(self, folder: Path, shard: int) -> Path:
        return folder / LATENTS / f"{self.shards[shard]['name']}.safetensors"

    def _shard(
        self, size: Size | None, rows: list[tuple[int, Example, ImageInfo, bool]]
    ) -> Task | None:
        """Note a shard, and where each of its examples is; what has to be done for it, if anything."""
        keys = [
            row_key(example, look, size or self.square, flipped)
            for _, example, look, flipped in rows
        ]
        name, number = hash128([self.spaces[LATENTS], keys]), len(self.shards)
        shape = [
            self.base.latent_channels,
            *(side // self.base.vae_scale_factor for side in reversed(size or self.square)),
        ]
        self.shards.append({"name": name, "rows": len(rows), "shape": shape, "answers": None})
        for row, (key, (_, example, _, flipped)) in enumerate(zip(keys, rows, strict=True)):
            caption = self._caption(example.caption)
            self._tables[EXAMPLES].add(
                example.id, caption, key, number, row, example.prior, flipped
            )
        if size and (path := self._missing(LATENTS, name)):
            return Task(
                path,
                size,
                [(i, flipped) for i, _, _, flipped in rows],
                self.known[LATENTS].rows(keys),
            )
        return None

    def _missing(self, kind: str, name: str) -> Path | None:
        """Where a shard is to be written; None where it is there, here or in another cache, or is being written already."""
        path = self.part / kind / f"{name}.safetensors"
        if f"{kind}/{path.name}" in self.files:
            return None
        found = path if is_stored(path) else self.known[kind].shard(name)
        self.files[f"{kind}/{path.name}"] = found or path
        return None if found else path

    def _caption(self, caption: str) -> int:
        """The number of a caption, a new one's embedding to be made."""
        key = hash64(caption.encode())
        if key not in self._captions:
            self._captions[key] = len(self._captions)
            self._waiting.append(caption)
            if len(self._waiting) == TEXT_ROWS:
                self.flush_texts()
        return self._captions[key]

    def _put_texts(self, texts: list[str]):
        name, number = hash128([self.spaces[TEXTS], texts]), len(self.texts)
        self.texts.append({"name": name, "rows": len(texts)})
        lengths = [len(ids) for ids in self._tokenizer(texts, verbose=False).input_ids]
        for row, (caption, length) in enumerate(zip(texts, lengths, strict=True)):
            self._tables[CAPTIONS].add(caption, length, number, row)
        self.notes.tokens.update(lengths)
        self.captions_cut += sum(length > self._tokenizer.model_max_length for length in lengths)
        if path := self._missing(TEXTS, name):
            self._do(number, "texts", path, texts, self.known[TEXTS].rows(texts))

    def _find_unconditional(self):
        path = self.part / f"unconditional-{self.spaces['unconditional'][:32]}.safetensors"
        known = self.known[TEXTS]
        same = [(folder / UNCONDITIONAL, meta["files"][UNCONDITIONAL]) for folder, meta in known.folders
                if meta["spaces"]["unconditional"] == self.spaces["unconditional"]]  # fmt: skip
        found = (
            path
            if is_stored(path)
            else next((each for each, digest in same if known.whole(each, digest)), None)
        )
        self.files[UNCONDITIONAL] = found or path
        if not found:
            self._do(0, "unconditional", path, self.config.negative_prompt)

    def _find_answers(self):
        """The teacher's answers, shard by shard."""
        examples, captions = (
            pyarrow.parquet.read_table(self.part / name) for name in (EXAMPLES, CAPTIONS)
        )
        texts = [self.files[f"{TEXTS}/{each['name']}.safetensors"] for each in self.texts]
        start = 0
        with progress_bar(total=len(examples), unit=" answers", mininterval=1, ascii=" #") as bar:
            for number, shard in enumerate(self.shards):
                own = examples.slice(start, shard["rows"])
                start += shard["rows"]
                keys, spoken = own["key"].to_pylist(), captions.take(own["caption"])
                words = spoken["caption"].to_pylist()
                shard["answers"] = hash128([self.spaces[ANSWERS], keys, words, shard["shape"]])
                if path := self._missing(ANSWERS, shard["answers"]):
                    places = zip(
                        spoken["shard"].to_pylist(), spoken["row"].to_pylist(), strict=True
                    )
                    rows = [(texts[which], row) for which, row in places]
                    latents = self.files.get(f"{LATENTS}/{shard['name']}.safetensors")
                    asked = (
                        path,
                        keys,
                        rows,
                        latents if self.config.teacher_cache == "data" else None,
                        tuple(shard["shape"]),
                    )
                    setup = (self.files[UNCONDITIONAL], self.config)
                    self._do(
                        number,
                        "answers",
                        setup,
                        *asked,
                        then=lambda rows=shard["rows"]: bar.update(rows),
                    )
                else:
                    bar.update(shard["rows"])
            self._settle()

    def _ask(self, number: int, what: str, *given: Any) -> int:
        if self._team is None:
            self._team = processes.WorkerPool(self.base, self.members, self.config.batch_size)
        return self._team.ask(number % self.members, what, *given)

    def _do(self, number: int, what: str, *given: Any, then: Callable = lambda: None):
        """Have something written, and wait for what was asked long before."""
        self._work.append((self._ask(number, what, *given), then))
        while len(self._work) > 3 * self.members:
            self._finish_one()

    def _settle(self):
        while self._work:
            self._finish_one()

    def _finish_one(self):
        question, then = self._work.popleft()
        self._team.reply(question)
        then()

    def text_shape(self) -> list[int]:
        """[tokens, width] of a caption's embedding."""
        return list(map_shard(self.files[UNCONDITIONAL])["empty"].shape)
