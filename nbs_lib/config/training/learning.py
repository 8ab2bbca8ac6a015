"""Parameters of `2_train.ipynb`: what is learned, from which teacher, by which LoRA."""

from typing import Literal

from ..fields import group
from ..stage import RUN, Stage, check_range, parameters
from ..validation import reject

FEW_STEPS = "a list of different whole numbers from 1 to 8"

learned = group("What is learned")
distilled = group("What is learned", "guidance", "consistency", "distribution")
adapter = group("LoRA")


@parameters
class Learning(Stage):
    """The first fields of `Train`."""

    run: str = RUN

    objective: Literal["guidance", "finetune", "consistency", "distribution"] = learned(
        "guidance",
        "Objective: guidance, finetune, consistency or distribution. "
        "Guidance learns two passes in one, finetune the images themselves, consistency few "
        "sampling steps, distribution the same from prompts alone.",
    )
    method: Literal["lora", "rslora", "dora", "full"] = learned(
        "lora",
        "Weights that are trained: lora, rslora, dora, or full. Full is all of the denoiser's.",
    )
    guidance_scale: float = learned(
        4.0,
        "Guidance scale w of the teacher. Its prediction is "
        "eps_uncond + w (eps_cond − eps_uncond); a finetuned model is sampled with w.",
        # at w = 1 the teacher is the base's conditional pass
        ge=1.0,
        le=100.0,
    )
    guidance_scale_max: float = distilled(
        0.0,
        "Largest w, if w is drawn for each example. It is drawn from guidance_scale upwards; "
        "0 keeps w fixed.",
        # the lower limit depends on guidance_scale, see _check_teacher
        ge=0.0,
        le=100.0,
        allowed="0, or a number from guidance_scale to 100",
    )
    teacher: Literal["live", "cached"] = group("What is learned", "guidance")(
        "live", "Origin of the teacher's predictions: live, or cached ones of 1_prepare."
    )

    few_steps: list[int] = group("What is learned", "distribution")(
        [4],
        "Numbers of sampling steps, 1 to 8, that distribution learns. One of them is drawn for "
        "each batch; the first is the one that the adapter is sampled with.",
        allowed=FEW_STEPS,
    )

    # rank and alpha are equal, so that the update has scale 1 with all kinds except rslora.
    # rslora: arXiv 2312.03732
    rank: int = adapter(16, "Rank of the LoRA.", ge=1, le=1024)
    alpha: float = adapter(
        16.0,
        "Strength of the LoRA. "
        "Its update is scaled by alpha / rank, or by alpha / sqrt(rank) for rslora.",
        ge=0.001,
        le=4096.0,
    )
    lora_dropout: float = adapter(0.0, "Share of the LoRA's inputs left out.", ge=0.0, le=0.9)
    target_modules: Literal["attention", "feedforward", "all"] = adapter(
        "attention",
        "Layers with a LoRA: attention, feedforward or all. "
        "Feedforward includes attention; all is every linear layer and convolution in the blocks.",
    )

    def __post_init__(self):
        self._check_teacher()
        self._check_few_steps()

    def _check_teacher(self):
        if self.guidance_scale_max:
            check_range(self, "guidance_scale_max", self.guidance_scale, 100.0)
        if self.guidance_scale_max and self.objective == "finetune":
            reject("guidance_scale_max", self.guidance_scale_max, "0, for finetune has no teacher")
        # consistency evaluates its teacher at the solver's own timesteps, finetune has no teacher
        if self.teacher == "cached" and self.objective != "guidance":
            reject("teacher", self.teacher, f"live, if the objective is {self.objective}")

    def _check_few_steps(self):
        steps = self.few_steps
        if not steps or len(set(steps)) < len(steps) or not all(1 <= n <= 8 for n in steps):
            reject("few_steps", steps, FEW_STEPS)
        # the roles of distribution are one denoiser with its adapters switched
        if self.objective == "distribution" and self.method == "full":
            reject("method", self.method, "lora, rslora or dora, if the objective is distribution")
