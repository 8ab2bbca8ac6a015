"""Parameters of `1_prepare.ipynb`."""

from dataclasses import dataclass

from .validation import between, one_of, refuse, said

DRAWN = ("picturebook", "unseen")
"""Sources that are drawn by code, without end."""


@dataclass(frozen=True)
class Prepare:
    """Parameters of `1_prepare.ipynb`: images and captions into a cache of latents and text embeddings."""

    run: str = "outputs/notebook"
    """Folder of the run, relative to the project."""
    base: str = "embedded"
    """The base: `embedded`, a folder in diffusers' layout, or a hub id."""
    revision: str = ""
    """Revision of a base on the hub: a branch, a tag or a commit; empty takes its newest."""
    source: str = "picturebook"
    """Where examples come from: picturebook, unseen, a folder, a table, archives, a .txt of prompts, hf:ID or diffusiondb:."""
    count: int = 768
    """Examples at most; 0 takes all."""
    subset: str = ""
    """Of a data set on the hub its configuration; of DiffusionDB its parts, such as 2m_first_10k."""
    split: str = "train"
    """Of a data set on the hub, its split."""
    streamed: bool = False
    """Whether a data set of the hub is read while it is fetched, and not kept."""
    image_column: str = ""
    """Column of images or of their paths; empty finds the usual names."""
    caption_column: str = ""
    """Column of captions; empty finds the usual names."""
    captions: str = "files"
    """Captions of a folder's images that no metadata table names: files (beside the images) or names (the images' own)."""
    template: str = ""
    """Words around each caption, which stands for {}: "a photo in my style, {}"; empty leaves captions as they are."""
    resolution: int = 64
    """Pixels a side; with buckets, of a square as large."""
    buckets: bool = False
    """Whether images keep about their proportions, in buckets of sizes; else they are cut to squares."""
    crop: str = "center"
    """Which part of an image is kept: center, or random, another place for each image, which `seed` decides."""
    flip: bool = False
    """Whether each image is there a second time, mirrored."""
    min_side: int = 0
    """Pixels of the shorter side that an image must have."""
    max_aspect: float = 0.0
    """Longest that an image may be, as a multiple of its other side; 0 takes any."""
    max_nsfw: float = 1.0
    """Highest score of DiffusionDB for images and prompts unfit for work, from 0 to 1; blurred images are always dropped."""
    drop_duplicates: bool = True
    """Whether an image file is used once only, however often it is there."""
    near_duplicates: int = -1
    """Bits of 64 that perceptual hashes of two images may differ in for the second to be dropped; -1 keeps all."""
    drop_same_prompts: bool = False
    """Whether a caption is used once only."""
    negative: str = ""
    """Prompt of the unconditional side of guidance."""
    prior: str = ""
    """Source of images that keep what the base knew, for finetune, as in `source`; empty for none."""
    prior_count: int = 200
    """Examples of the prior at most; 0 takes all."""
    answers: str = "none"
    """The teacher's answers to keep: none, data (noised images) or trajectories (its own sampling)."""
    draws: int = 8
    """Answers kept for each example."""
    answers_guidance: float = 4.0
    """Guidance scale of the sampling whose steps are the trajectories."""
    processes: int = 0
    """Processes that encode; 0 is one for each GPU, or for each core on a machine without."""
    batch_size: int = 64
    """Images encoded at once, in each process."""
    seed: int = 0
    """Seed of the picture-book's scenes and wordings, and of the answers' noise."""
    replace: bool = False
    """Whether a finished stage of the run that has other parameters is replaced; else it is refused."""

    def __post_init__(self):
        said(self, "run", "a folder")
        said(self, "base", "embedded, a folder or a hub id")
        if self.revision and self.base == "embedded":
            refuse("revision", self.revision, "nothing with base embedded, which is not on the hub")
        said(
            self,
            "source",
            "picturebook, unseen, a folder, a table, archives, prompts or a data set of the hub",
        )
        between(self, "count", 1 if self.source in DRAWN else 0, 100_000_000)
        one_of(self, "captions", ("files", "names"))
        if self.template and self.template.count("{}") != 1:
            refuse(
                "template",
                self.template,
                "words with {} once, where the caption stands, or nothing",
            )
        between(self, "resolution", 8, 4096)
        if self.resolution % 8:
            refuse("resolution", self.resolution, "a multiple of 8")
        one_of(self, "crop", ("center", "random"))
        between(self, "min_side", 0, 100_000)
        if self.max_aspect:
            between(self, "max_aspect", 1.0, 1000.0)
        between(self, "max_nsfw", 0.0, 1.0)
        between(self, "near_duplicates", -1, 16)
        between(self, "prior_count", 1 if self.prior in DRAWN else 0, 100_000_000)
        one_of(self, "answers", ("none", "data", "trajectories"))
        between(self, "draws", 1, 1000)
        between(self, "answers_guidance", 1.0, 100.0)
        between(self, "processes", 0, 1024)
        between(self, "batch_size", 1, 4096)
        between(self, "seed", 0, 2**31 - 1)
