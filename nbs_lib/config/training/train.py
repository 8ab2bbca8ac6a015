"""Parameters of `2_train.ipynb`. Those that decide the learned weights stand in
`learning` and `optimizing`.
"""

from typing import Literal

from ..fields import group
from ..hosts import MASTER_ADDR, MASTER_PORT, NODE_RANK, NUM_NODES, check_hosts, hosts
from ..stage import REPLACE, check_texts, parameters, run_group
from ..validation import reject
from .optimizing import Optimizing

TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")
# allowed values in words
TRACKER_NAMES = f"a list of {', '.join(TRACKERS)}, each once, or an empty one"
PROMPTS = "a list of prompts, none of them empty"
# values of `resume_from_checkpoint`, beside the name of a checkpoint
LATEST = "latest"
NONE = "none"

memory = group("Precision and memory")
checkpoints = group("Checkpoints")
watching = group("Watching")


@parameters
class Train(Optimizing):
    """Parameters of `2_train.ipynb`: an objective learned by a LoRA or the whole denoiser, on
    DeepSpeed.
    """

    mixed_precision: Literal["auto", "fp32", "bf16", "fp16"] = memory(
        "auto",
        "Arithmetic of the denoiser: auto, fp32, bf16 or fp16. "
        "Auto is the fastest that the machine has, fp16 needs a GPU. "
        "It is that of the passes and the frozen weights; trained weights are fp32.",
    )
    base_precision: Literal["as_is", "int8", "fp8", "nf4"] = memory(
        "as_is",
        "Storage of the frozen weights: as_is, int8, fp8 or nf4. "
        "Int8 and fp8 take a byte for each, nf4 little more than half; passes restore them. "
        "It is for lora and rslora, and not for ZeRO 3.",
    )
    allow_tf32: bool = memory(
        False, "Rounding of fp32 products and convolutions on a GPU to TF32, which is faster."
    )
    gradient_checkpointing: bool = memory(
        False, "Second computation of activations in the backward pass instead of their storage."
    )
    compile: Literal["off", "blocks", "whole"] = memory(
        "off",
        "Denoiser compiled by torch.compile: off, blocks or whole. "
        "Whole takes a minute or more before the first step, and makes CUDA graphs on a GPU; "
        "blocks takes less. The compiled code is kept for later trainings.",
    )
    deepspeed: bool = memory(
        True,
        "Training by DeepSpeed. Without it, training is plain data-parallel.",
    )
    zero_stage: int = memory(
        0,
        "ZeRO stage of DeepSpeed. "
        "Prodigy needs 0, because it has to see all gradients at once; so does fp16, except for a "
        "LoRA at 1 or 2.",
        ge=0,
        le=3,
    )
    offload: bool = memory(
        False,
        "Optimizer of DeepSpeed in the CPU's memory, where it also steps. "
        "It needs ZeRO 1 or more, and adamw.",
    )

    num_processes: int = hosts(
        0,
        "Training processes on each host, 0 for one per GPU. A machine without a GPU takes 2 then.",
        ge=0,
        le=65_536,
    )
    launcher: Literal["notebook", "subprocess"] = hosts(
        "notebook",
        "Start of the processes: notebook (forked by notebook_launcher) or subprocess (new ones, "
        "by accelerate's own launch).",
    )
    num_nodes: int = NUM_NODES
    node_rank: int = NODE_RANK
    master_addr: str = MASTER_ADDR
    master_port: int = MASTER_PORT

    checkpointing_steps: int = checkpoints(
        100,
        "Steps from one checkpoint to the next, 0 for minutes only. "
        "There is one more after the last step.",
        ge=0,
        le=10_000_000,
    )
    checkpoint_minutes: float = checkpoints(
        0.0, "Minutes from one checkpoint to the next, 0 for steps only.", ge=0.0, le=100_000.0
    )
    checkpoints_total_limit: int = checkpoints(
        2, "Number of checkpoints that are kept, the newest ones.", ge=1, le=10_000
    )
    resume_from_checkpoint: str = checkpoints(
        LATEST,
        "Start of the training: latest, none, or step-0000100. "
        "Latest is the newest checkpoint that this training would have come to itself, none is "
        "step 0; a checkpoint's name resumes there, whatever its learning rates were.",
        # the folder of a checkpoint is named by its step, in seven digits or more
        pattern=rf"^({LATEST}|{NONE}|step-[0-9]{{7,12}})$",
        allowed="latest, none or a checkpoint's name, step-0000100",
    )

    log_every: int = watching(
        5, "Steps from one line of metrics.jsonl to the next.", ge=1, le=10_000_000
    )
    validation_steps: int = watching(
        100,
        "Steps from one held-out loss and its pictures to the next, 0 for neither.",
        ge=0,
        le=10_000_000,
    )
    validation_prompts: list[str] = watching(
        [],
        "Prompts of the validation pictures. Empty takes the captions of held-out examples.",
        allowed=PROMPTS,
    )
    num_validation_images: int = watching(
        4,
        "Validation pictures each time, of held-out captions or of each prompt, 0 for none.",
        ge=0,
        le=64,
    )
    validation_examples: int = watching(
        16,
        "Held-out examples, a quarter at most, which are never trained on. 0 trains on all.",
        ge=0,
        le=100_000,
    )
    early_stopping_patience: int = group("Watching", "guidance", "finetune")(
        0,
        "Validations in a row without a lower held-out loss that end the training, 0 for none.",
        # the other limits depend on what is validated, see _check_early_stopping
        ge=0,
        le=10_000,
    )
    trackers: list[str] = watching(
        [],
        "Trackers that get metrics and pictures too, such as tensorboard or wandb. "
        "The others are trackio and mlflow; each package is an extra of that name. "
        "Nothing leaves the machine unless the tracker's own variables ask for it.",
        allowed=TRACKER_NAMES,
    )

    seed: int = run_group(
        0,
        "Seed of the first weights, the order of examples, the noise and the timesteps.",
        ge=0,
        le=2**31 - 1,
    )
    replace: bool = REPLACE

    def __post_init__(self):
        super().__post_init__()
        self._check_deepspeed()
        self._check_base_precision()
        self._check_early_stopping()
        check_hosts(self)
        # the hosts' free memory differs, and all of them need one batch size
        if self.num_nodes > 1 and not self.batch_size:
            reject("batch_size", 0, "1 or more, if there are several hosts")
        check_texts(self, "validation_prompts", PROMPTS)
        names = set(self.trackers)
        if not names <= set(TRACKERS) or len(names) < len(self.trackers):
            reject("trackers", self.trackers, TRACKER_NAMES)

    @property
    def casts_lora_once(self) -> bool:
        """True if a LoRA's weights are cast once a pass, and not layer by layer."""
        # DoRA and dropout compute with their inputs in fp32; ZeRO 3 gathers a layer's weights only
        # while the layer passes
        sharded = self.deepspeed and self.zero_stage == 3
        return self.method in ("lora", "rslora") and not self.lora_dropout and not sharded

    @property
    def engine_scales_loss(self) -> bool:
        """True if DeepSpeed's or accelerate's engine has the loss scale of fp16."""
        return self.mixed_precision == "fp16" and not self.casts_lora_once

    def _check_early_stopping(self):
        if not self.early_stopping_patience:
            return
        needed = "1 or more with early_stopping_patience, which goes by held-out losses"
        for name in ("validation_steps", "validation_examples"):
            if not getattr(self, name):
                reject(name, 0, needed)
        # their targets move with the student, so a lower loss says nothing of a better one
        if self.objective in ("consistency", "distribution"):
            allowed = f"0, if the objective is {self.objective}"
            reject("early_stopping_patience", self.early_stopping_patience, allowed)

    def _check_base_precision(self):
        if self.base_precision == "as_is":
            return
        # dora reads the norms of the frozen weights themselves, full trains them
        if self.method not in ("lora", "rslora"):
            reject("base_precision", self.base_precision, f"as_is with method {self.method}")
        if self.deepspeed and self.zero_stage == 3:
            reject("zero_stage", 3, f"0, 1 or 2 with base_precision {self.base_precision}")

    def _check_deepspeed(self):
        sharded = self.deepspeed and self.zero_stage
        # it has to see all gradients at once, and ZeRO gives each process a part of them
        if sharded and self.optimizer == "prodigy":
            reject("zero_stage", self.zero_stage, "0 with optimizer prodigy")
        if sharded and self.engine_scales_loss:
            allowed = "0 with mixed_precision fp16; or 1 or 2 with lora or rslora, without dropout"
            reject("zero_stage", self.zero_stage, allowed)
        # DeepSpeed gathers the weights by hooks, which a graph does not call
        if self.compile != "off" and self.deepspeed and self.zero_stage == 3:
            reject("compile", self.compile, "off with DeepSpeed's zero_stage 3")
        # at 3 each pass would gather the weights of both adapters, of which it uses one
        if self.objective == "distribution" and self.deepspeed and self.zero_stage == 3:
            reject("zero_stage", 3, "0, 1 or 2, if the objective is distribution")
        # DeepSpeed's optimizer in the CPU's memory is an AdamW, and needs ZeRO's parts
        if self.offload and not (sharded and self.optimizer == "adamw"):
            allowed = "false, or true with DeepSpeed, its zero_stage 1, 2 or 3, and adamw"
            reject("offload", True, allowed)
