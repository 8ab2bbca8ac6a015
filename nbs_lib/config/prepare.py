"""Parameters of `1_prepare.ipynb`."""

from typing import Literal

from ..project import EMBEDDED_BASES
from .fields import group
from .hosts import MASTER_ADDR, MASTER_PORT, NODE_RANK, NUM_NODES, check_hosts, hosts
from .stage import REPLACE, RUN, Stage, check_range, parameters, run_group
from .validation import reject

# sources that code draws without end, so that they need a number of examples
DRAWN = ("picturebook", "unseen")
TEMPLATES = "words with {} once, where the caption stands, or nothing"

examples = group("Examples")
hub = group("Data sets and tables")
pictures = group("Images")
filters = group("Filters")
prior = group("Prior preservation", "finetune")
teacher = group("Teacher cache", "guidance")


@parameters
class Prepare(Stage):
    """Parameters of `1_prepare.ipynb`: images and captions into a cache of latents and text
    embeddings.
    """

    run: str = RUN

    base: str = examples(
        "embedded",
        "Base: embedded, a folder, a .safetensors file or a hub id. "
        "The embedded one comes with the library, a folder has diffusers' layout.",
        pattern=r"\S",
        allowed="embedded, a folder, a .safetensors file or a hub id",
    )
    revision: str = examples(
        "", "Revision of a base on the hub: a branch, a tag or a commit. Empty takes its newest."
    )
    source: str = examples(
        "picturebook",
        "Source of the examples. "
        "A folder, a table, archives, a .txt of prompts, hf:ID and diffusiondb:SUBSET are read; "
        "picturebook and unseen are drawn by code.",
        # the forms are too many for a pattern; `sources` refuses an unknown one
        pattern=r"\S",
        allowed="picturebook, unseen, a folder, a table, archives, prompts "
        "or a data set of the hub",
    )
    max_examples: int = examples(
        768, "Largest number of examples, 0 for all.", ge=0, le=100_000_000
    )
    # here and not in train: its embedding is a part of the cache
    negative_prompt: str = examples("", "Prompt of the unconditional side of guidance.")

    subset: str = hub(
        "", "Configuration of a data set on the hub; parts of DiffusionDB, such as 2m_first_10k."
    )
    split: str = hub("train", "Split of a data set on the hub.")
    streaming: bool = hub(
        False, "Reading of a hub data set while it is fetched, without a copy on disk."
    )
    image_column: str = hub("", "Column of images or of their paths. Empty finds the usual names.")
    caption_column: str = hub("", "Column of captions. Empty finds the usual names.")
    captions: Literal["files", "names"] = hub(
        "files",
        "Captions of a folder's images: files or names. "
        "These are text files beside the images, or the images' own names; "
        "a metadata table goes first.",
    )
    captioner: str = hub(
        "",
        "Model that drafts captions for images without one, such as BLIP or GIT. "
        "A folder or a hub id of transformers' layout; empty leaves such images out.",
        allowed="empty, a folder or a hub id",
    )
    template: str = hub(
        "",
        'Words around each caption, whose place is {}. An example is "a photo in my style, {}"; '
        "empty changes nothing.",
        allowed=TEMPLATES,
    )

    resolution: int = pictures(
        128,
        "Side of the images, in pixels. With buckets, the side of a square of the same area.",
        ge=8,
        le=4096,
        # a VAE halves an image three times
        multiple_of=8,
        allowed="a multiple of 8 from 8 to 4,096",
    )
    buckets: bool = pictures(
        False,
        "Sizes that keep about the proportions of each image. "
        "Without them images are cut to squares.",
    )
    crop: Literal["center", "random"] = pictures(
        "center",
        "Part of an image that is kept: center or random. "
        "Random is a place for each image, which the seed decides.",
    )
    flip: bool = pictures(False, "Second, mirrored copy of each image.")

    min_side: int = filters(
        0, "Smallest length of the shorter side of an image, in pixels.", ge=0, le=100_000
    )
    max_aspect: float = filters(
        0.0,
        "Largest ratio of the longer side of an image to the shorter one, 0 for any.",
        ge=0.0,
        le=1000.0,
        allowed="0, or a number from 1 to 1,000",
    )
    max_nsfw: float = filters(
        1.0,
        "Largest score of DiffusionDB for images and prompts that are unfit for work. "
        "Blurred images are always dropped.",
        ge=0.0,
        le=1.0,
    )
    drop_duplicates: bool = filters(
        True, "Use of each image file only once, however often the source has it."
    )
    near_duplicates: int = filters(
        -1,
        "Hash bits, of 64, in which near-duplicates differ, -1 for off. "
        "The second image with a perceptual hash as near as that is dropped.",
        # -1 and not 0 is off: 0 drops images of equal hashes
        ge=-1,
        le=16,
    )
    drop_same_prompts: bool = filters(False, "Use of each caption only once.")

    # prior preservation: arXiv 2208.12242
    prior_preservation_source: str = prior(
        "",
        "Source of images that keep what the base knows. "
        "It is for the objective finetune, given as in source, empty for none.",
    )
    prior_preservation_max_examples: int = prior(
        200, "Largest number of examples of that source, 0 for all.", ge=0, le=100_000_000
    )

    teacher_cache: Literal["none", "data", "trajectories"] = teacher(
        "none",
        "Stored teacher predictions: none, data or trajectories. "
        "Data are noised images, trajectories the teacher's own sampling.",
    )
    teacher_samples: int = teacher(8, "Predictions stored for each example.", ge=1, le=1000)
    teacher_guidance_scale: float = teacher(
        4.0, "Guidance scale of the sampling whose steps are the trajectories.", ge=1.0, le=100.0
    )

    num_processes: int = hosts(
        0,
        "Number of processes on each host that encode. "
        "0 takes one for each GPU, or one for each core on a machine without.",
        ge=0,
        le=1024,
    )
    batch_size: int = hosts(64, "Images encoded at once, in each process.", ge=1, le=4096)
    num_nodes: int = NUM_NODES
    node_rank: int = NODE_RANK
    master_addr: str = MASTER_ADDR
    master_port: int = MASTER_PORT

    seed: int = run_group(
        0,
        "Seed of drawn scenes and wordings, random crops and the teacher's noise.",
        ge=0,
        le=2**31 - 1,
    )
    replace: bool = REPLACE

    def __post_init__(self):
        if self.revision and self.base in EMBEDDED_BASES:
            allowed = f"nothing with base {self.base}, which is not on the hub"
            reject("revision", self.revision, allowed)
        # 0, all examples, would have no end for a source drawn by code
        check_range(self, "max_examples", 1 if self.source in DRAWN else 0, 100_000_000)
        least = 1 if self.prior_preservation_source in DRAWN else 0
        check_range(self, "prior_preservation_max_examples", least, 100_000_000)
        # without {} all captions would be equal
        if self.template and self.template.count("{}") != 1:
            reject("template", self.template, TEMPLATES)
        check_hosts(self)
        # no image has a ratio below 1; 0 turns the filter off
        if self.max_aspect:
            check_range(self, "max_aspect", 1.0, 1000.0)
