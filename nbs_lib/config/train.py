"""Parameters of `2_train.ipynb`."""

import re
from dataclasses import dataclass, field

from .validation import between, one_of, refuse, said

OWN_LR = {"adamw": 1e-3, "prodigy": 1.0}
"""The learning rate of each optimizer where none is given."""
LOWEST_LR = {"adamw": 1e-8, "prodigy": 0.1}
"""Prodigy multiplies its own estimate by the learning rate, so that it hardly learns with a small one."""
LAST_LR = 1e-7
"""Where diffusers' polynomial schedule ends."""
LATEST, NONE = "latest", "none"
"""Of `resume_from_checkpoint`, beside the name of a checkpoint."""


@dataclass(frozen=True)
class Train:
    """Parameters of `2_train.ipynb`: an objective learned by a LoRA or by the whole UNet, on DeepSpeed."""

    run: str = "outputs/notebook"
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
    targets: str = "attention"
    """Layers with a LoRA: attention, feedforward (and attention) or all (every linear and convolution in the blocks)."""
    steps: int = 400
    """Optimizer steps."""
    epochs: int = 0
    """Passes over the examples that are trained on, which set the steps; 0 takes `steps`."""
    batch_size: int = 8
    """Examples a pass and process."""
    accumulate: int = 1
    """Passes whose gradients make one optimizer step."""
    optimizer: str = "adamw"
    """AdamW, or prodigy, which finds the learning rate by itself from lr 1 (its package is an extra)."""
    lr: float = 0.0
    """Highest learning rate; 0 takes the optimizer's own: 0.001 for adamw, 1 for prodigy."""
    adam_beta1: float = 0.9
    """Decay of the optimizer's mean of the gradients; of Prodigy's, too, as are the next three."""
    adam_beta2: float = 0.999
    """Decay of the optimizer's mean of the squared gradients."""
    adam_epsilon: float = 1e-8
    """Number added to the root of the squared gradients' mean, which a step is divided by."""
    adam_weight_decay: float = 0.0
    """Share of the learning rate by which weights shrink in each step, apart from their gradients."""
    schedule: str = "cosine"
    """Course of the learning rate after the warmup, one of diffusers': constant, linear, cosine, cosine_with_restarts or
    polynomial."""
    warmup: int = 10
    """Steps that lead up to the highest learning rate."""
    lr_num_cycles: int = 1
    """Times that cosine_with_restarts falls from the highest learning rate."""
    lr_power: float = 1.0
    """Power of the polynomial schedule; 1 is a straight line."""
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
    precision: str = "auto"
    """Arithmetic of the UNet's passes and its frozen weights: fp32, bf16, fp16 on a GPU, or auto, the fastest that the machine
    has; what is trained is fp32."""
    allow_tf32: bool = False
    """Whether fp32 products and convolutions on a GPU may round to TF32, which is faster."""
    checkpointing: bool = False
    """Gradient checkpointing: activations are computed again instead of kept."""
    deepspeed: bool = True
    """Whether DeepSpeed trains; without it, plain data-parallel training, which compiles nothing."""
    zero_stage: int = 0
    """ZeRO stage of DeepSpeed, 0 to 3; prodigy and fp16 need 0: they have to see all gradients at once."""
    offload: bool = False
    """Whether DeepSpeed keeps the optimizer in the CPU's memory and steps it there; needs ZeRO 1 or more."""
    launcher: str = "notebook"
    """How processes start: notebook (forked by notebook_launcher) or subprocess (afresh, by accelerate's own launch)."""
    processes: int = 0
    """Processes to train with on each host; 0 is one for each GPU, or 2 on a machine without."""
    num_nodes: int = 1
    """Hosts that train together; each starts the same training, and all see one `outputs/` folder."""
    node_rank: int = 0
    """Which of the hosts this is, from 0, which keeps the record, to num_nodes - 1."""
    master_addr: str = "127.0.0.1"
    """Address of host 0, as the others reach it."""
    master_port: int = 0
    """Port of host 0 for the processes to meet; 0 takes a free one, where there is one host."""
    checkpoint_every: int = 100
    """Steps from one checkpoint to the next, and one after the last step; 0 counts minutes only."""
    checkpoint_minutes: float = 0.0
    """Minutes from one checkpoint to the next; 0 counts steps only."""
    checkpoints_total_limit: int = 2
    """Checkpoints that are kept, the newest ones."""
    resume_from_checkpoint: str = "latest"
    """Where a training goes on: latest (the newest checkpoint that it would have come to itself), none (from step 0), or a
    checkpoint's name, such as step-0000100, whatever the course of its learning rate was."""
    log_every: int = 5
    """Steps from one line of metrics.jsonl to the next."""
    validate_every: int = 100
    """Steps from one held-out loss and its pictures to the next; 0 leaves both out."""
    validation_prompts: list[str] = field(default_factory=list)
    """Prompts of the pictures on the way; none takes the captions of held-out examples."""
    num_validation_images: int = 4
    """Pictures at each look: of held-out captions, or of each of the validation prompts; 0 leaves them out."""
    held_out: int = 16
    """Examples that are never trained on, a quarter at most, for the held-out loss and its pictures; 0 trains on all."""
    tensorboard: bool = False
    """Whether the metrics are written for TensorBoard as well (its package is an extra)."""
    seed: int = 0
    """Seed of the first weights, the order of examples, the noise and the timesteps."""
    replace: bool = False
    """Whether a finished stage of the run that has other parameters is replaced; else it is refused."""

    def __post_init__(self):
        if not self.lr:  # the record says what was used, and not that nothing was given
            object.__setattr__(self, "lr", OWN_LR.get(self.optimizer, 0.0))
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
        between(self, "epochs", 0, 1_000_000)
        between(self, "batch_size", 1, 4096)
        between(self, "accumulate", 1, 4096)
        one_of(self, "optimizer", ("adamw", "prodigy"))
        self._check_learning_rate()
        between(self, "clip", 1e-6, 1e6)
        between(self, "ema", 0.0, 0.99999)
        between(self, "snr_gamma", 0.0, 1000.0)
        between(self, "noise_offset", 0.0, 1.0)
        between(self, "caption_dropout", 0.0, 1.0)
        between(self, "prior_weight", 0.0, 100.0)
        between(self, "huber", 1e-6, 10.0)
        one_of(self, "precision", ("auto", "fp32", "bf16", "fp16"))
        one_of(self, "zero_stage", (0, 1, 2, 3))
        for name, needs in (("optimizer", "prodigy"), ("precision", "fp16")):
            if (
                getattr(self, name) == needs and self.deepspeed and self.zero_stage
            ):  # see `train/engine.py`
                refuse("zero_stage", self.zero_stage, f"0 with {name} {needs}")
        if self.offload and not (self.deepspeed and self.zero_stage and self.optimizer == "adamw"):
            refuse(
                "offload",
                True,
                "false, or true with DeepSpeed, its zero_stage 1, 2 or 3, and adamw",
            )
        one_of(self, "launcher", ("notebook", "subprocess"))
        between(self, "processes", 0, 65_536)
        between(self, "num_nodes", 1, 1024)
        between(self, "node_rank", 0, self.num_nodes - 1)
        said(self, "master_addr", "an address")
        between(self, "master_port", 0 if self.num_nodes == 1 else 1024, 65535)
        between(self, "checkpoint_every", 0, 10_000_000)
        between(self, "checkpoint_minutes", 0.0, 100_000.0)
        between(self, "checkpoints_total_limit", 1, 10_000)
        if self.resume_from_checkpoint not in (LATEST, NONE) and not re.fullmatch(
            r"step-\d{7,12}", self.resume_from_checkpoint
        ):
            refuse(
                "resume_from_checkpoint",
                self.resume_from_checkpoint,
                "latest, none or a checkpoint's name, step-0000100",
            )
        between(self, "log_every", 1, 10_000_000)
        between(self, "validate_every", 0, 10_000_000)
        if not all(prompt.strip() for prompt in self.validation_prompts):
            refuse("validation_prompts", self.validation_prompts, "prompts, none of them empty")
        between(self, "num_validation_images", 0, 64)
        between(self, "held_out", 0, 100_000)
        between(self, "seed", 0, 2**31 - 1)

    def _check_learning_rate(self):
        low, own = LOWEST_LR[self.optimizer], OWN_LR[self.optimizer]
        if not low <= self.lr <= 10:
            refuse(
                "lr",
                self.lr,
                f"a number from {low:g} to 10 with optimizer {self.optimizer}, or 0 for its own, {own:g}",
            )
        between(self, "adam_beta1", 0.0, 0.99999)
        between(self, "adam_beta2", 0.0, 0.9999999)
        between(self, "adam_epsilon", 1e-20, 1.0)
        between(self, "adam_weight_decay", 0.0, 10.0)
        one_of(
            self, "schedule", ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial")
        )
        between(self, "warmup", 0, 10_000_000)
        if self.schedule == "polynomial" and self.lr <= LAST_LR:
            refuse(
                "lr",
                self.lr,
                f"a number above {LAST_LR:g} with schedule polynomial, which ends there",
            )
        between(self, "lr_num_cycles", 1, 10_000)
        between(self, "lr_power", 0.01, 100.0)
        if self.lr_num_cycles > 1 and self.schedule != "cosine_with_restarts":
            refuse(
                "lr_num_cycles",
                self.lr_num_cycles,
                f"1 with schedule {self.schedule}, or more with cosine_with_restarts",
            )
        if self.lr_power != 1 and self.schedule != "polynomial":
            refuse(
                "lr_power",
                self.lr_power,
                f"1 with schedule {self.schedule}, or another with polynomial",
            )
