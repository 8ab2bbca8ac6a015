"""The parameters of the notebooks: the only home of their defaults and of their checks.

Each notebook's `parameters` cell repeats the fields of its dataclass; a test holds them together.
"""

from dataclasses import dataclass, field

from .axes import read_axes
from .contenders import CONTENDERS, contender
from .parameters import ParameterError, between, one_of, refuse, said

REFERENCE_PROMPTS = [
    "A boy is watching TV",
    "A photo of a person dancing in the rain",
    "A photo of a boy jumping over a fence",
    "A photo of a boy is kicking a ball",
    "A beach with a lot of waves on it",
    "A road that is going down a hill",
    "3d rendering of 5 tennis balls on top of a cake",
    "A person holding a drink of soda",
    "A person is squeezing a lemon",
    "A person holding a cat",
]
"""The prompts of the reference comparison, in DeepSpeedExamples' `training/stable_diffusion`."""


DRAWN = ("picturebook", "unseen")
"""Sources that are drawn by code, without end."""


@dataclass(frozen=True)
class Prepare:
    """Parameters of `1_prepare.ipynb`: images and captions into a cache of latents and text embeddings."""

    run: str = "outputs/demo"
    """Folder of the run, relative to the project."""
    base: str = "embedded"
    """The base: `embedded`, a folder in diffusers' layout, or a hub id."""
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
    """A folder's captions: files (beside the images, or a metadata table) or names (the images' own)."""
    template: str = ""
    """Words around each caption, which stands for {}: "a photo in my style, {}"; empty leaves captions as they are."""
    resolution: int = 64
    """Pixels a side; with buckets, of a square as large."""
    buckets: bool = False
    """Whether images keep about their proportions, in buckets of sizes; else they are cut to squares."""
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

    def __post_init__(self):
        said(self, "run", "a folder")
        said(self, "base", "embedded, a folder or a hub id")
        said(self, "source", "picturebook, unseen, a folder, a table, archives, prompts or a data set of the hub")
        between(self, "count", 1 if self.source in DRAWN else 0, 100_000_000)
        one_of(self, "captions", ("files", "names"))
        if self.template and self.template.count("{}") != 1:
            refuse("template", self.template, "words with {} once, where the caption stands, or nothing")
        between(self, "resolution", 8, 4096)
        if self.resolution % 8:
            refuse("resolution", self.resolution, "a multiple of 8")
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


@dataclass(frozen=True)
class Train:
    """Parameters of `2_train.ipynb`: an objective learned by a LoRA or by the whole UNet, on DeepSpeed."""

    run: str = "outputs/demo"
    """Folder of the run, relative to the project."""
    objective: str = "guidance"
    """What is learned: guidance (two passes in one), finetune (the images themselves) or consistency (few steps)."""
    method: str = "lora"
    """What is trained: lora, rslora, dora, or full (every weight of the UNet)."""
    guidance: float = 4.0
    """Guidance scale w of the teacher, eps_uncond + w (eps_cond − eps_uncond); what a finetune is sampled with."""
    guidance_max: float = 0.0
    """Largest w where it is drawn for each example, from `guidance` upwards; 0 keeps it fixed."""
    teacher: str = "live"
    """Where the teacher's answers come from: live, or cached ones of `1_prepare`."""
    rank: int = 16
    """Rank of the LoRA."""
    alpha: float = 16.0
    """Strength of the LoRA: its update is scaled by alpha / rank, or alpha / sqrt(rank) for rslora."""
    dropout: float = 0.0
    """Share of the LoRA's inputs that is left out at random."""
    targets: str = "feedforward"
    """Layers with a LoRA: attention, feedforward (and attention) or all (every linear and convolution)."""
    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 8
    """Examples a pass and process."""
    accumulate: int = 1
    """Passes whose gradients make one optimizer step."""
    optimizer: str = "adamw"
    """AdamW, or prodigy, which finds the learning rate by itself from lr 1 (its package is an extra)."""
    lr: float = 1e-3
    """Highest learning rate."""
    schedule: str = "cosine"
    """Course of the learning rate after the warmup: constant, linear, cosine or polynomial, as diffusers has them."""
    warmup: int = 10
    """Steps that lead up to the highest learning rate."""
    clip: float = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it."""
    ema: float = 0.0
    """Decay of the mean over the steps' weights that is saved; 0 saves the last weights."""
    snr_gamma: float = 5.0
    """Largest signal-to-noise ratio that counts in the loss of finetune (min-SNR); 0 weighs all noise levels alike."""
    noise_offset: float = 0.0
    """Noise added to each channel as a whole in finetune, for very dark and very bright images."""
    caption_dropout: float = 0.1
    """Share of examples that finetune sees without their caption, so that guidance still works."""
    prior_weight: float = 1.0
    """Weight of the prior's examples in finetune, where `1_prepare` was given some."""
    huber: float = 0.001
    """Constant c of the pseudo-Huber loss of consistency."""
    precision: str = "bf16"
    """Arithmetic of the UNet's passes and its frozen weights: fp32, bf16, or fp16 on a GPU; what is trained is fp32."""
    checkpointing: bool = False
    """Gradient checkpointing: activations are computed again instead of kept."""
    deepspeed: bool = True
    """Whether DeepSpeed trains; without it, plain data-parallel training, which compiles nothing."""
    zero_stage: int = 2
    """ZeRO stage of DeepSpeed, 0 to 3; prodigy and fp16 need 0: they have to see all gradients at once."""
    offload: bool = False
    """Whether DeepSpeed keeps the optimizer in the CPU's memory and steps it there; needs ZeRO 1 or more."""
    launcher: str = "notebook"
    """How processes start: notebook (forked by notebook_launcher) or subprocess (afresh, by accelerate's own launch)."""
    processes: int = 0
    """Processes to train with on each host; 0 is one for each GPU, or 2 on a machine without."""
    num_nodes: int = 1
    """Hosts that train together; each starts the same training, and all see the run's folder."""
    node_rank: int = 0
    """Which of the hosts this is, from 0, which keeps the record, to num_nodes - 1."""
    master_addr: str = "127.0.0.1"
    """Address of host 0, as the others reach it."""
    master_port: int = 0
    """Port of host 0 for the processes to meet; 0 takes a free one, where there is one host."""
    checkpoint_every: int = 100
    """Steps from one checkpoint to the next; 0 counts minutes only."""
    checkpoint_minutes: float = 0.0
    """Minutes from one checkpoint to the next; 0 counts steps only."""
    log_every: int = 5
    """Steps from one line of metrics.jsonl to the next."""
    validate_every: int = 100
    """Steps from one held-out loss and its pictures to the next; 0 leaves both out."""
    held_out: int = 16
    """Examples that are never trained on, a quarter at most, for the held-out loss and its pictures; 0 trains on all."""
    tensorboard: bool = False
    """Whether the metrics are written for TensorBoard as well (its package is an extra)."""
    seed: int = 0
    """Seed of the first weights, the order of examples, the noise and the timesteps."""

    def __post_init__(self):
        said(self, "run", "a folder")
        one_of(self, "objective", ("guidance", "finetune", "consistency"))
        one_of(self, "method", ("lora", "rslora", "dora", "full"))
        between(self, "guidance", 1.0, 100.0)
        if self.guidance_max:
            between(self, "guidance_max", self.guidance, 100.0)
        if self.guidance_max and self.objective == "finetune":
            refuse("guidance_max", self.guidance_max, "0, for finetune has no teacher")
        one_of(self, "teacher", ("live", "cached"))
        if self.teacher == "cached" and self.objective != "guidance":
            refuse("teacher", self.teacher, f"live, where the objective is {self.objective}")
        between(self, "rank", 1, 1024)
        between(self, "alpha", 0.001, 4096.0)
        between(self, "dropout", 0.0, 0.9)
        one_of(self, "targets", ("attention", "feedforward", "all"))
        between(self, "steps", 1, 10_000_000)
        between(self, "batch_size", 1, 4096)
        between(self, "accumulate", 1, 4096)
        one_of(self, "optimizer", ("adamw", "prodigy"))
        between(self, "lr", 0.1 if self.optimizer == "prodigy" else 1e-8, 10.0)
        one_of(self, "schedule", ("constant", "linear", "cosine", "polynomial"))
        between(self, "warmup", 0, 10_000_000)
        between(self, "clip", 1e-6, 1e6)
        between(self, "ema", 0.0, 0.99999)
        between(self, "snr_gamma", 0.0, 1000.0)
        between(self, "noise_offset", 0.0, 1.0)
        between(self, "caption_dropout", 0.0, 1.0)
        between(self, "prior_weight", 0.0, 100.0)
        between(self, "huber", 1e-6, 10.0)
        one_of(self, "precision", ("fp32", "bf16", "fp16"))
        one_of(self, "zero_stage", (0, 1, 2, 3))
        for name, needs in (("optimizer", "prodigy"), ("precision", "fp16")):
            if getattr(self, name) == needs and self.deepspeed and self.zero_stage:  # see `train/engine.py`
                refuse("zero_stage", self.zero_stage, f"0 with {name} {needs}")
        if self.offload and not (self.deepspeed and self.zero_stage and self.optimizer == "adamw"):
            refuse("offload", True, "false, or true with DeepSpeed, its zero_stage 1 or more and adamw")
        one_of(self, "launcher", ("notebook", "subprocess"))
        between(self, "processes", 0, 65_536)
        between(self, "num_nodes", 1, 1024)
        between(self, "node_rank", 0, self.num_nodes - 1)
        said(self, "master_addr", "an address")
        between(self, "master_port", 0 if self.num_nodes == 1 else 1024, 65535)
        between(self, "checkpoint_every", 0, 10_000_000)
        between(self, "checkpoint_minutes", 0.0, 100_000.0)
        between(self, "log_every", 1, 10_000_000)
        between(self, "validate_every", 0, 10_000_000)
        between(self, "held_out", 0, 100_000)
        between(self, "seed", 0, 2**31 - 1)


@dataclass(frozen=True)
class Compare:
    """Parameters of `3_compare.ipynb`: base and tuned from the same noise, looked at and measured."""

    run: str = "outputs/demo"
    """Folder of the run, relative to the project."""
    prompts: list[str] = field(default_factory=lambda: list(REFERENCE_PROMPTS))
    """Prompts of the pictures."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the pictures' noise; each prompt is drawn once for each."""
    contenders: list[str] = field(default_factory=lambda: ["unguided", "guided", "tuned"])
    """Who is compared: these three, and others beside them; see nbs_lib/contenders.py."""
    steps: int = 25
    """Sampling steps (DDIM)."""
    tuned_steps: int = 0
    """Sampling steps of the tuned model; 0 is what it was trained for: few for consistency, else as many as the base's."""
    adapter_scale: float = 1.0
    """How strongly the adapter is applied."""
    captions: int = 100
    """Held-out captions of the picture-book that the rates are measured on; 0 leaves them out."""
    clip: str = "auto"
    """The CLIP that scores: auto (the embedded base's own, for that base), none, a folder or a hub id."""
    dial: list[float] = field(default_factory=list)
    """Adapter scales whose nearest guidance scale is measured; empty leaves it out."""
    axes: list[str] = field(default_factory=list)
    """Two or three axes of a grid of pictures, NAME: VALUE | VALUE, e.g. "steps: 5 | 25"; see nbs_lib/axes.py."""
    batch_size: int = 20
    """Pictures sampled at once."""

    def __post_init__(self):
        said(self, "run", "a folder")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            refuse("prompts", self.prompts, "one prompt or more, none of them empty")
        if not self.seeds or not all(0 <= seed < 2**31 for seed in self.seeds):
            refuse("seeds", self.seeds, "one whole number or more, from 0 to 2147483647")
        try:
            for name in self.contenders:
                contender(name)
        except ValueError as wrong:
            raise ParameterError(f"parameter contenders: {wrong}") from None
        if not set(CONTENDERS) <= set(self.contenders):
            refuse("contenders", self.contenders, f"{', '.join(CONTENDERS)}, and others beside them")
        if len(set(self.contenders)) < len(self.contenders):
            refuse("contenders", self.contenders, "each of them once")
        between(self, "steps", 1, 1000)
        between(self, "tuned_steps", 0, 1000)
        between(self, "adapter_scale", -10.0, 10.0)
        between(self, "captions", 0, 100_000)
        said(self, "clip", "auto, none, a folder or a hub id")
        if (
            len(set(self.dial)) < len(self.dial)
            or not all(-10 <= turn <= 10 for turn in self.dial)
            or (self.dial and max(self.dial) <= 0)
        ):
            refuse("dial", self.dial, "numbers from -10 to 10, each once, one of them above 0")
        try:
            read_axes(self.axes)
        except ValueError as wrong:
            raise ParameterError(f"parameter axes: {wrong}") from None
        between(self, "batch_size", 1, 4096)


@dataclass(frozen=True)
class Play:
    """Parameters of `playground.ipynb`: what its controls say when it opens."""

    run: str = "outputs/demo"
    """Folder of the run, relative to the project."""
    prompts: list[str] = field(default_factory=lambda: ["A person in a red shirt holding a black cat on the left"])
    """What the first pictures show."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the noise that all contenders start from."""
    contenders: list[str] = field(default_factory=lambda: ["guided", "tuned"])
    """Who draws, as in `3_compare`; or another run's folder."""
    steps: int = 25
    """Sampling steps."""
    scheduler: str = ""
    """Scheduler of diffusers by its name; empty for each contender's own."""
    guidance: float = 0.0
    """Guidance scale w of the base; 0 is the one that the adapter was trained for."""
    adapter_scale: float = 1.0
    """How strongly an adapter is applied: λ."""
    pairs: int = 10
    """Pairs of pictures in a blind comparison."""

    def __post_init__(self):
        said(self, "run", "a folder")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            refuse("prompts", self.prompts, "one prompt or more, none of them empty")
        if not self.seeds or not all(0 <= seed < 2**31 for seed in self.seeds):
            refuse("seeds", self.seeds, "one whole number or more, from 0 to 2147483647")
        if not self.contenders or len(set(self.contenders)) < len(self.contenders):
            refuse("contenders", self.contenders, "one or more, each of them once")
        between(self, "steps", 1, 100)
        if self.guidance:
            between(self, "guidance", 1.0, 20.0)
        between(self, "adapter_scale", -1.0, 3.0)
        between(self, "pairs", 1, 1000)


@dataclass(frozen=True)
class MakeBase:
    """Parameters of `picturebook.ipynb`: the embedded base, made from nothing."""

    folder: str = "outputs/base"
    """Folder that the base is written to, relative to the project; training states are kept in it under `scratch/`."""
    groups: int = 6000
    """Training scenes, in groups of eight that differ in one attribute."""
    vae_steps: int = 4200
    """Optimizer steps of the VAE, of 32 pictures each."""
    clip_steps: int = 1200
    """Optimizer steps of the CLIP, of 64 pairs each."""
    unet_steps: int = 3000
    """Optimizer steps of the UNet, of 32 latents each."""
    captions: int = 500
    """Held-out captions that the base is measured on."""
    seed: int = 0
    """Seed of the book, the first weights and the batches."""

    def __post_init__(self):
        said(self, "folder", "a folder")
        between(self, "groups", 16, 1_000_000)
        for name in ("vae_steps", "clip_steps", "unet_steps"):
            between(self, name, 1, 10_000_000)
        between(self, "captions", 1, 5000)
        between(self, "seed", 0, 2**31 - 1)


PLACE = ("run", "launcher", "num_nodes", "node_rank", "master_addr", "master_port")
"""Parameters that say where and how a stage is done, and not what comes of it."""

STAGES: dict[str, type] = {"prepare": Prepare, "train": Train, "compare": Compare}
"""The three stages in their order, and the dataclass of each."""
