"""Parameters of `2_train.ipynb`: steps, optimizer and loss."""

from typing import Literal

from ..fields import group
from ..stage import parameters
from ..validation import reject
from .learning import Learning

# the learning rate of each optimizer if none is given
OWN_LR = {"adamw": 1e-3, "adamw_8bit": 1e-3, "prodigy": 1.0}
# Prodigy multiplies its own estimate by the learning rate: with a small one it hardly learns
LOWEST_LR = {"adamw": 1e-8, "adamw_8bit": 1e-8, "prodigy": 0.1}
HIGHEST_LR = 10
# diffusers' polynomial schedule ends at this rate, and refuses to begin at or below it
LAST_LR = 1e-7

optimizing = group("Steps and optimizer")
losses = group("Loss", "finetune")


@parameters
class Optimizing(Learning):
    """The fields of `Train` that follow those of `Learning`."""

    steps: int = optimizing(400, "Optimizer steps.", ge=1, le=10_000_000)
    epochs: int = optimizing(
        0,
        "Passes over the training examples, which set the steps, 0 for steps.",
        ge=0,
        le=1_000_000,
    )
    batch_size: int = optimizing(
        8,
        "Examples of one pass and process, 0 for as many as the memory plan allows. "
        "The learning rate stays as it is.",
        ge=0,
        le=4096,
    )
    gradient_accumulation_steps: int = optimizing(
        1, "Passes whose gradients make one optimizer step.", ge=1, le=4096
    )
    optimizer: Literal["adamw", "adamw_8bit", "prodigy"] = optimizing(
        "adamw",
        "Optimizer: adamw, adamw_8bit or prodigy. "
        "Adamw_8bit keeps each mean of the gradients in one byte, where adamw takes four; "
        "its package is the extra bitsandbytes. "
        "Prodigy finds the learning rate by itself from learning_rate 1; its package is an extra.",
    )
    learning_rate: float = optimizing(
        0.0,
        "Highest learning rate, 0 for the optimizer's own. "
        "That is 1 for prodigy, and 0.001 for the others.",
        # the other limits depend on the optimizer, see _check_learning_rate
        ge=0.0,
        allowed="0, or a number from 1e-08, or with prodigy from 0.1, to 10",
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
        "Number added to the root of the mean of the squared gradients, by which a step is "
        "divided, in AdamW and Prodigy.",
        # with 0 the first step of a weight without a gradient would be 0 / 0
        ge=1e-20,
        le=1.0,
    )
    adam_weight_decay: float = optimizing(
        0.0,
        "Share of the learning rate by which weights shrink in each step, apart from their "
        "gradients, in AdamW and Prodigy.",
        ge=0.0,
        le=10.0,
    )
    # the two time scales of arXiv 2405.14867, sec. 4.2, by the rate instead of by more steps
    fake_score_lr_scale: float = group("Steps and optimizer", "distribution")(
        2.0, "Multiple of learning_rate that distribution's fake score has.", ge=0.01, le=100.0
    )
    max_grad_norm: float = optimizing(
        1.0,
        "Largest norm of the gradient. A gradient with a larger one is scaled down to it.",
        ge=1e-6,
        le=1e6,
    )
    ema_decay: float = optimizing(
        0.0,
        "Decay of the moving average of the weights. The average is what is saved; "
        "0 saves the last weights.",
        ge=0.0,
        le=0.99999,
    )

    # Source: arXiv 2202.00512, sec. 4, whose weights are for an error of x_0
    loss_weighting: Literal["snr", "truncated_snr", "snr_plus_one"] = group("Loss", "guidance")(
        "snr",
        "Weights of guidance's loss over noise levels: snr, truncated_snr or snr_plus_one. "
        "Snr is the plain error of the noise; the others weigh high noise more, "
        "where a picture's content is decided.",
    )
    # 5 is the value of the paper. Source: arXiv 2303.09556
    snr_gamma: float = losses(
        5.0,
        "Largest signal-to-noise ratio that counts in the loss of finetune (min-SNR). "
        "0 weighs all noise levels alike, as SD 3 was trained.",
        ge=0.0,
        le=1000.0,
    )
    # Source: arXiv 2403.03206, sec. 3.1
    timestep_sampling: Literal["uniform", "logit_normal"] = losses(
        "uniform",
        "Timesteps of finetune: uniform or logit_normal. "
        "Logit_normal draws those in the middle the most often, as SD 3 was trained.",
    )
    noise_offset: float = losses(
        0.0,
        "Noise added to each channel as a whole in finetune, for very dark and very bright images.",
        ge=0.0,
        le=1.0,
    )
    # the paper on guidance without a classifier takes 0.1 or 0.2. Source: arXiv 2207.12598
    caption_dropout: float = losses(
        0.1,
        "Share of examples without their caption in finetune, so that guidance still works.",
        ge=0.0,
        le=1.0,
    )
    prior_loss_weight: float = losses(
        1.0,
        "Weight of the prior preservation examples in finetune, if 1_prepare was given some.",
        ge=0.0,
        le=100.0,
    )
    matching_levels: Literal["own", "above"] = group("Loss", "distribution")(
        "own",
        "Noise levels at which distribution compares its guesses with the teacher: own or above. "
        "Own are those from a sampling step to the next one, above go on to pure noise.",
    )
    huber_c: float = group("Loss", "consistency")(
        0.001, "Constant c of consistency's pseudo-Huber loss.", ge=1e-6, le=10
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.learning_rate:
            # frozen; the record must hold the rate that was used
            object.__setattr__(self, "learning_rate", OWN_LR[self.optimizer])
        # it has two learning rates
        if self.objective == "distribution" and self.optimizer == "prodigy":
            allowed = "adamw or adamw_8bit, if the objective is distribution"
            reject("optimizer", self.optimizer, allowed)
        self._check_learning_rate()
        self._check_lr_scheduler()

    def _check_learning_rate(self):
        rate = self.learning_rate
        low = LOWEST_LR[self.optimizer]
        if not low <= rate <= HIGHEST_LR:
            allowed = f"a number from {low:g} to {HIGHEST_LR} with optimizer {self.optimizer}"
            own = f"{OWN_LR[self.optimizer]:g}"
            reject("learning_rate", rate, f"{allowed}, or 0 for its own, {own}")
        if self.lr_scheduler == "polynomial" and rate <= LAST_LR:
            allowed = f"a number above {LAST_LR:g} with lr_scheduler polynomial, which ends there"
            reject("learning_rate", rate, allowed)

    def _check_lr_scheduler(self):
        # another schedule would ignore the value, and the run would look as if it had used it
        if self.lr_num_cycles > 1 and self.lr_scheduler != "cosine_with_restarts":
            allowed = f"1 with lr_scheduler {self.lr_scheduler}, or more with cosine_with_restarts"
            reject("lr_num_cycles", self.lr_num_cycles, allowed)
        if self.lr_power != 1 and self.lr_scheduler != "polynomial":
            allowed = f"1 with lr_scheduler {self.lr_scheduler}, or another with polynomial"
            reject("lr_power", self.lr_power, allowed)
