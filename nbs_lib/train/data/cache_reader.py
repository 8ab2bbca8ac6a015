"""A prepared cache as training reads it: small tables in memory, and mapped tensors row by row.

`nbs_lib/cache/format.py` describes its files.
"""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from torch import Tensor

from ...cache.format import (
    CAPTIONS,
    EXAMPLES,
    META,
    CacheError,
    answer_shards,
    latent_shards,
    load_unconditional,
    open_cache,
    text_shards,
)
from ...config import Train
from ...config.validation import setting
from ...diffusion import noise_like

# One example in four is held out at most.
HELD_OUT_SHARE = 4
TextPair = tuple[Tensor, Tensor | None]


class DataError(ValueError):
    """A cache that cannot be trained on: which one, and what to do."""


def check_cache(folder: Path, config: Train):
    """Check every byte of a cache, and that it holds what the parameters need.

    Errors: DataError if a file is missing or changed, if the teacher's cached predictions are asked
    for and there are none, or if there are no images and they are needed.
    """
    prepare = "run notebooks/1_prepare.ipynb"
    try:
        metadata = open_cache(folder).meta
    except CacheError as damage:
        raise DataError(f"{damage}; {prepare} again, it is rebuilt") from None
    answers = metadata["answers"]
    cached = config.teacher == "cached"
    if cached and not answers:
        cache_data = setting("prepare", "teacher_cache", "data")
        train_live = setting("train", "teacher", "live")
        raise DataError(
            f"cache {folder} has no answers of a teacher; {prepare} with {cache_data} or "
            f"'trajectories', or train with {train_live}"
        )
    if config.early_stopping_patience:
        _check_held_out(folder, config)
    # the student's own sampling needs prompts alone
    needs_images = config.objective != "distribution"
    if cached and answers["states"] == "trajectories":
        needs_images = False
    if needs_images and not metadata["images"]:
        cache_states = setting("prepare", "teacher_cache", "trajectories")
        train_cached = setting("train", "teacher", "cached")
        raise DataError(
            f"cache {folder} has prompts without images; {prepare} with {cache_states} and train "
            f"with {train_cached}, train with {setting('train', 'objective', 'distribution')}, or "
            "give it images"
        )


def _check_held_out(folder: Path, config: Train):
    """Check that an early end has held-out examples to go by. Errors: DataError."""
    table = _read_table(folder / EXAMPLES, ["prior", "flipped"])
    originals = ~integers(table["prior"]).bool() & ~integers(table["flipped"]).bool()
    count = int(originals.sum())
    if count < HELD_OUT_SHARE:
        raise DataError(
            f"early_stopping_patience: given {config.early_stopping_patience}; cache {folder} has "
            f"{count} examples, of which none can be held out; give 0, or "
            f"{HELD_OUT_SHARE} examples or more"
        )


class CacheReader:
    """A cache that `check_cache` has passed, read by the indices of its examples."""

    def __init__(self, folder: Path, config: Train):
        """Open the cache in a folder."""
        self.folder = folder
        self.config = config
        self.meta = json.loads((folder / META).read_text("utf-8"))
        self.table = _read_table(folder / EXAMPLES)
        self.shard = integers(self.table["shard"])
        self.row = integers(self.table["row"])
        self.caption = integers(self.table["caption"])
        captions = _read_table(folder / CAPTIONS, ["shard", "row"])
        self.text_shard = integers(captions["shard"])
        self.text_row = integers(captions["row"])
        # of the empty prompt and of the negative one
        self.fixed_texts = load_unconditional(folder)
        self._map_tensors(folder)
        shapes = [tuple(shard["shape"]) for shard in self.meta["shards"]]
        self.shapes = sorted(set(shapes))
        shape_of_shard = torch.tensor([self.shapes.index(shape) for shape in shapes])
        self.shape = shape_of_shard[self.shard]

    def _map_tensors(self, folder: Path):
        # a file is mapped when it is first read, so thousands of them cost nothing here
        self.latents = latent_shards(folder, self.meta)
        self.embeddings = text_shards(folder, self.meta)
        self.pooled = text_shards(folder, self.meta, "pooled")
        self.answers = {}
        if self.config.teacher == "cached":
            names = ["t", "uncond", "cond"]
            # a planned cache may have none; its training is refused later, with a reason
            if (self.meta["answers"] or {}).get("states") == "trajectories":
                names.append("x_t")
            self.answers = {name: answer_shards(folder, self.meta, name) for name in names}

    @property
    def nbytes(self) -> int:
        """Return the bytes of the tensors in memory; mapped ones do not count."""
        values = [*vars(self).values(), *self.fixed_texts.values()]
        return sum(value.nbytes for value in values if isinstance(value, Tensor))

    def ids(self, example: Tensor) -> list[str]:
        """Return the names of examples. example: their indices [n]."""
        return self.id_column(example).to_pylist()

    def captions(self, example: Tensor) -> list[str]:
        """Return the captions of examples. example: their indices [n]."""
        # read here, because only pictures that somebody looks at need them
        texts = _read_table(self.folder / CAPTIONS, ["caption"])["caption"]
        return [texts[row].as_py() for row in self.caption[example].tolist()]

    def id_column(self, example: Tensor) -> pyarrow.ChunkedArray:
        """Return the names of examples as pyarrow holds them."""
        # pyarrow.array would import pandas, in every process
        buffer = pyarrow.py_buffer(example.cpu().contiguous().numpy())
        indices = pyarrow.Array.from_buffers(pyarrow.int64(), len(example), [None, buffer])
        return self.table["id"].take(indices)

    def shape_of(self, example: Tensor) -> tuple[int, ...]:
        """Return [c, h, w] of the latents of examples, which all have one shape."""
        return self.shapes[int(self.shape[example[0]])]

    def clean_latents(self, example: Tensor) -> Tensor:
        """Return the latents of examples of one shape, zeros for prompts without images."""
        # of these, only the cached states are used
        if not self.meta["images"]:
            return torch.zeros(len(example), *self.shape_of(example))
        return self.latents.take(self.shard[example], self.row[example])

    def texts(self, example: Tensor, dropped: Tensor | None = None) -> TextPair:
        """Return context and pooled text of examples [n]; the latter is None in some families.

        dropped: bool [n], True for the empty prompt instead of the caption.
        """
        caption = self.caption[example]
        rows = (self.text_shard[caption], self.text_row[caption])
        context = _drop(self.embeddings.take(*rows), self.fixed_texts["empty"], dropped)
        if "empty_pooled" not in self.fixed_texts:
            return context, None
        return context, _drop(self.pooled.take(*rows), self.fixed_texts["empty_pooled"], dropped)

    def unconditional(self, n: int) -> TextPair:
        """Return context and pooled text of the negative prompt, n times."""
        context = self.fixed_texts["negative"]
        pooled = self.fixed_texts.get("negative_pooled")
        if pooled is not None:
            pooled = pooled.expand(n, *pooled.shape)
        return context.expand(n, *context.shape), pooled

    def cached_answers(self, example: Tensor, chance: Tensor) -> dict:
        """Return the fields of a batch that come from the teacher cache: t, noise, answers, x_t.

        example: indices [n] of examples of one shape.
        chance: [n] in [0, 1), which chooses one of each example's draws.
        """
        shard = self.shard[example]
        row = self.row[example]
        times = self.answers["t"].take(shard, row)
        draw = (chance * times.shape[1]).long()
        choice = (shard, row, draw)
        answers = tuple(self.answers[side].take(*choice) for side in ("uncond", "cond"))
        fields = {"t": self.answers["t"].take(*choice), "answers": answers}
        shape = self.shape_of(example)
        if "x_t" in self.answers:
            states = self.answers["x_t"].take(*choice).float()
            return fields | {"x_t": states, "noise": torch.zeros(len(example), *shape)}
        # noise is drawn again from its example's key, bit for bit, instead of being stored
        keys = self.table["key"].take(example.tolist()).to_pylist()
        seed = self.meta["answers"]["seed"]
        noise = [noise_like(seed, *pair, shape) for pair in zip(keys, draw.tolist(), strict=True)]
        return fields | {"noise": torch.stack(noise)}


def _drop(text: Tensor, empty: Tensor, dropped: Tensor | None) -> Tensor:
    """Return text [n, ...] with the empty prompt's in the dropped rows."""
    if dropped is None:
        return text
    return torch.where(dropped.view(-1, *[1] * empty.dim()), empty, text)


def _read_table(path: Path, columns: list[str] | None = None) -> pyarrow.Table:
    """Return the columns of a parquet file, all by default."""
    # pyarrow's read_table, array and to_numpy would import pandas and its data sets, in every
    # process
    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read(columns)


def integers(column: pyarrow.ChunkedArray) -> Tensor:
    """Return a column without gaps as int64."""
    return torch.from_dlpack(column.cast(pyarrow.int64()).combine_chunks()).clone()
