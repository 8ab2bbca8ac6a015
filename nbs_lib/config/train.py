"""Parameters of `2_train.ipynb`."""

from typing import Literal

from .fields import group
from .stage import Stage, check_range, check_texts, parameters
from .validation import reject

OWN_LR = {"adamw": 1e-3, "prodigy": 1.0}
"""The learning rate of each optimizer if none is given."""
LOWEST_LR = {"adamw": 1e-8, "prodigy": 0.1}
"""Prodigy multiplies its own estimate by the learning rate, so that it hardly learns with a small one."""
HIGHEST_LR = 10
LAST_LR = 1e-7
"""The learning rate at which diffusers' polynomial schedule ends."""
PROMPTS = "a list of prompts, none of them empty"
LATEST, NONE = "latest", "none"
"""Values of `resume_from_checkpoint`, beside the name of a checkpoint."""

run_group = group("Run")
learned = group("What is learned")
adapter = group("LoRA")
optimizing = group("Steps and optimizer")
losses = group("Loss")
memory = group("Precision and memory")
hosts = group("Processes and hosts")
checkpoints = group("Checkpoints")
watching = group("Watching")


@parameters
class Train(Stage):
    """Parameters of `2_train.ipynb`: an objective learned by a LoRA or by the whole UNet, on DeepSpeed."""

    run: str = run_group(
        "outputs/notebook",
        "Folder of the run, relative to the project.",
        pattern=r"\S",
        allowed="a folder",
    )

    objective: Literal["guidance", "finetune", "consistency"] = learned(
        "guidance",
        "Objective: guidance, finetune or consistency. Guidance learns two passes in one, finetune the images themselves, "
        "consistency few sampling steps.",
    )
    method: Literal["lora", "rslora", "dora", "full"] = learned(
        "lora",
        "Weights that are trained: lora, rslora, dora, or full. Full is every weight of the UNet.",
    )
    guidance_scale: float = learned(
        4.0,
        "Guidance scale w of the teacher. Its prediction is eps_uncond + w (eps_cond − eps_uncond); a finetuned model is "
        "sampled with w.",
        ge=1.0,
        le=100.0,
    )
    guidance_scale_max: float = learned(
        0.0,
        "Largest w, if w is drawn for each example. It is drawn from guidance_scale upwards; 0 keeps w fixed.",
        ge=0.0,
        le=100.0,
        allowed="0, or a number from guidance_scale to 100",
    )
    teacher: Literal["live", "cached"] = learned(
        "live", "Origin of the teacher's predictions: live, or cached ones of 1_prepare."
    )

    rank: int = adapter(16, "Rank of the LoRA.", ge=1, le=1024)
    alpha: float = adapter(
        16.0,
        "Strength of the LoRA. Its update is scaled by alpha / rank, or by alpha / sqrt(rank) for rslora.",
        ge=0.001,
        le=4096.0,
    )
    lora_dropout: float = adapter(
        0.0, "Share of the LoRA's inputs that is left out at random.", ge=0.0, le=0.9
    )
    target_modules: Literal["attention", "feedforward", "all"] = adapter(
        "attention",
        "Layers with a LoRA: attention, feedforward or all. Feedforward includes attention; all is every linear layer and "
        "convolution in the blocks.",
    )

    steps: int = optimizing(400, "Optimizer steps.", ge=1, le=10_000_000)
    epochs: int = optimizing(
        0,
        "Passes over the training examples, which set the steps, 0 for steps.",
        ge=0,
        le=1_000_000,
    )
    batch_size: int = optimizing(8, "Examples of one pass and process.", ge=1, le=4096)
    gradient_accumulation_steps: int = optimizing(
        1, "Passes whose gradients make one optimizer step.", ge=1, le=4096
    )
    optimizer: Literal["adamw", "prodigy"] = optimizing(
        "adamw",
        "Optimizer: AdamW, or prodigy. Prodigy finds the learning rate by itself from learning_rate 1; "
        "its package is an extra.",
    )
    learning_rate: float = optimizing(
        0.0,
        "Highest learning rate, 0 for the optimizer's own. That is 0.001 for adamw and 1 for prodigy.",
        ge=0.0,
        allowed="0, or a number from 1e-08 (adamw) or 0.1 (prodigy) to 10",
    )
    lr_scheduler: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = (
        optimizing("cosine", "Course of the learning rate after the warmup, one of diffusers'.")
    )
    lr_warmup_steps: int = optimizing(
        10, "Steps that lead up to the highest learning rate.", ge=0, le=10_000_000
    )
    lr_num_cycles: int = optimizing(
        1,
        "Number of times that cosine_with_restarts falls from the highest learning rate.",
        ge=1,
        le=10_000,
    )
    lr_power: float = optimizing(
        1.0, "Power of the polynomial schedule. 1 is a straight line.", ge=0.01, le=100.0
    )
    adam_beta1: float = optimizing(
        0.9, "Decay of the mean of the gradients, in AdamW and Prodigy.", ge=0.0, le=0.99999
    )
    adam_beta2: float = optimizing(
        0.999,
        "Decay of the mean of the squared gradients, in AdamW and Prodigy.",
        ge=0.0,
        le=0.9999999,
    )
    adam_epsilon: float = optimizing(
        1e-8,
        "Number added to the root of the mean of the squared gradients, by which a step is divided, in AdamW and Prodigy.",
        ge=1e-20,
        le=1.0,
    )
    adam_weight_decay: float = optimizing(
        0.0,
        "Share of the learning rate by which weights shrink in each step, apart from their gradients, in AdamW and Prodigy.",
        ge=0.0,
        le=10.0,
    )
    max_grad_norm: float = optimizing(
        1.0,
        "Largest norm of the gradient. A gradient with a larger one is scaled down to it.",
        ge=1e-6,
        le=1e6,
    )
    ema_decay: float = optimizing(
        0.0,
        "Decay of the moving average of the weights. The average is what is saved; 0 saves the last weights.",
        ge=0.0,
        le=0.99999,
    )

    snr_gamma: float = losses(
        5.0,
        "Largest signal-to-noise ratio that counts in the loss of finetune (min-SNR). 0 weighs all noise levels alike.",
        ge=0.0,
        le=1000.0,
    )
    noise_offset: float = losses(
        0.0,
        "Noise added to each channel as a whole in finetune, for very dark and very bright images.",
        ge=0.0,
        le=1.0,
    )
    caption_dropout: float = losses(
        0.1,
        "Share of examples that finetune sees without their caption, so that guidance still works.",
        ge=0.0,
        le=1.0,
    )
    prior_loss_weight: float = losses(
        1.0,
        "Weight of the prior preservation examples in finetune, if 1_prepare was given some.",
        ge=0.0,
        le=100.0,
    )
    huber_c: float = losses(
        0.001, "Constant c of the pseudo-Huber loss of consistency.", ge=1e-6, le=10.0
    )

    mixed_precision: Literal["auto", "fp32", "bf16", "fp16"] = memory(
        "auto",
        "Arithmetic of the UNet: auto, fp32, bf16 or fp16. Auto is the fastest that the machine has, fp16 needs a GPU. "
        "It is that of the passes and the frozen weights; trained weights are fp32.",
    )
    allow_tf32: bool = memory(
        False, "Rounding of fp32 products and convolutions on a GPU to TF32, which is faster."
    )
    gradient_checkpointing: bool = memory(
        False, "Second computation of activations in the backward pass instead of their storage."
    )
    deepspeed: bool = memory(
        True,
        "Training by DeepSpeed. Without it, training is plain data-parallel and compiles nothing.",
    )
    zero_stage: int = memory(
        0,
        "ZeRO stage of DeepSpeed. Prodigy and fp16 need 0, because they have to see all gradients at once.",
        ge=0,
        le=3,
    )
    offload: bool = memory(
        False,
        "Optimizer of DeepSpeed in the CPU's memory, where it also steps. It needs ZeRO 1 or more, and adamw.",
    )

    num_processes: int = hosts(
        0,
        "Training processes on each host, 0 for one per GPU. A machine without a GPU takes 2 then.",
        ge=0,
        le=65_536,
    )
    launcher: Literal["notebook", "subprocess"] = hosts(
        "notebook",
        "Start of the processes: notebook (forked by notebook_launcher) or subprocess (new ones, by accelerate's own launch).",
    )
    num_nodes: int = hosts(
        1,
        "Hosts that train together. Each starts the same training, and all see one outputs/ folder.",
        ge=1,
        le=1024,
    )
    node_rank: int = hosts(
        0,
        "Number of this host. Host 0 keeps the record.",
        ge=0,
        allowed="a whole number from 0 to num_nodes - 1",
    )
    master_addr: str = hosts(
        "127.0.0.1",
        "Address of host 0, as the other hosts reach it.",
        pattern=r"\S",
        allowed="an address",
    )
    master_port: int = hosts(
        0,
        "Port of host 0 for the processes to meet, 0 for a free one. Several hosts need one of 1,024 or more.",
        ge=0,
        le=65_535,
    )

    checkpointing_steps: int = checkpoints(
        100,
        "Steps from one checkpoint to the next, 0 for minutes only. There is one more after the last step.",
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
        "Start of the training: latest, none, or step-0000100. Latest is the newest checkpoint that this training would "
        "have come to itself, none is step 0; a checkpoint's name resumes there, whatever its learning rates were.",
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
    tensorboard: bool = watching(False, "Metrics for TensorBoard as well. Its package is an extra.")

    seed: int = run_group(
        0,
        "Seed of the first weights, the order of examples, the noise and the timesteps.",
        ge=0,
        le=2**31 - 1,
    )
    replace: bool = run_group(
        False,
        "Replacement of a finished stage that has other parameters. Without it such a stage is refused.",
    )

    def __post_init__(self):
        if not self.learning_rate:  # the record holds the rate that was used
            object.__setattr__(self, "learning_rate", OWN_LR[self.optimizer])
        self._check_teacher()
        self._check_learning_rate()
        self._check_deepspeed()
        check_range(self, "node_rank", 0, self.num_nodes - 1)
        if self.num_nodes > 1:
            check_range(self, "master_port", 1024, 65_535)
        check_texts(self, "validation_prompts", PROMPTS)

    def _check_teacher(self):
        if self.guidance_scale_max:
            check_range(self, "guidance_scale_max", self.guidance_scale, 100.0)
        if self.guidance_scale_max and self.objective == "finetune":
            reject("guidance_scale_max", self.guidance_scale_max, "0, for finetune has no teacher")
        if self.teacher == "cached" and self.objective != "guidance":
            reject("teacher", self.teacher, f"live, if the objective is {self.objective}")

    def _check_learning_rate(self):
        rate, low, own = self.learning_rate, LOWEST_LR[self.optimizer], OWN_LR[self.optimizer]
        if not low <= rate <= HIGHEST_LR:
            allowed = f"a number from {low:g} to {HIGHEST_LR} with optimizer {self.optimizer}, or 0 for its own, {own:g}"
            reject("learning_rate", rate, allowed)
        if self.lr_scheduler == "polynomial" and rate <= LAST_LR:
            reject(
                "learning_rate",
                rate,
                f"a number above {LAST_LR:g} with lr_scheduler polynomial, which ends there",
            )
        if self.lr_num_cycles > 1 and self.lr_scheduler != "cosine_with_restarts":
            allowed = f"1 with lr_scheduler {self.lr_scheduler}, or more with cosine_with_restarts"
            reject("lr_num_cycles", self.lr_num_cycles, allowed)
        if self.lr_power != 1 and self.lr_scheduler != "polynomial":
            reject(
                "lr_power",
                self.lr_power,
                f"1 with lr_scheduler {self.lr_scheduler}, or another with polynomial",
            )

    def _check_deepspeed(self):
        for name, value in (("optimizer", "prodigy"), ("mixed_precision", "fp16")):
            if (
                getattr(self, name) == value and self.deepspeed and self.zero_stage
            ):  # the reason is in `train/zero.py`
                reject("zero_stage", self.zero_stage, f"0 with {name} {value}")
        if self.offload and not (self.deepspeed and self.zero_stage and self.optimizer == "adamw"):
            reject(
                "offload",
                True,
                "false, or true with DeepSpeed, its zero_stage 1, 2 or 3, and adamw",
            )
