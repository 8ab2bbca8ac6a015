"""The weights with the lowest held-out loss so far, in a file until the training ends.

    checkpoints/best.safetensors           the trained weights, or their moving average if any
    checkpoints/step-N/best.safetensors    the same, as it was when that checkpoint was written

All validations take the same examples, noise and timesteps. So the losses of two steps compare pair
by pair, and what differs between examples and noise levels cancels out.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...config import Train
from ...files import hardlink_or_copy, remove_stale_temporaries, temporary_path
from ...run.continuation import checkpoint_name
from ...run.run import Run
from ..objectives import OBJECTIVES
from ..setup import TrainingState
from ..zero import gathered
from .checkpoint import BEST_FILE, write_error
from .plain_values import read, write


@dataclass(frozen=True)
class HeldOutLoss:
    """The losses of the held-out examples at a step, fp32 [n] on the CPU."""

    step: int
    losses: Tensor

    @property
    def mean(self) -> float:
        """Return the mean of the losses."""
        return float(self.losses.mean())


class BestWeights:
    """The best weights of a training, the same in every process; the main one writes the file.

    best: the validation with the lowest loss, None before the first one. It stays None if the
        losses of two steps do not compare.
    last: the newest validation.
    misses: validations since the best one.
    digest: SHA-256 of the file, known to the main process.
    """

    def __init__(self, config: Train, run: Run, training: TrainingState, accelerator):
        """Start without a validation; `load_state` and `begin` restore a checkpoint's."""
        self.every = config.validation_steps
        self.patience = config.early_stopping_patience
        self.compares = OBJECTIVES[config.objective].fixed_target
        self.checkpoints = run.checkpoints
        self.path = run.checkpoints / BEST_FILE
        self.training = training
        self.main = accelerator.is_main_process
        self.best: HeldOutLoss | None = None
        self.last: HeldOutLoss | None = None
        self.misses = 0
        self.digest = ""

    def begin(self, first: int):
        """Restore the file as it was at a checkpoint. Every process must call this.

        first: its step; 0 if the training starts over.
        """
        if self.main:
            remove_stale_temporaries(self.checkpoints)
            # it may be of a step after the checkpoint
            self.path.unlink(missing_ok=True)
        if not self.best:
            return
        if self.best.step == first:
            # the checkpoint's own weights are the best ones
            self._write(first)
        elif self.main:
            hardlink_or_copy(self.checkpoints / checkpoint_name(first) / BEST_FILE, self.path)

    def update(self, step: int, losses: Tensor):
        """Add a validation, and write the weights if it is the best. Every process must call this.

        losses: of the held-out examples, fp32 [n] on the CPU.
        Errors: CheckpointError if the disk is full.
        """
        self.last = HeldOutLoss(step, losses)
        # between two validations only the last step has one, which a longer training would not have
        if not self.compares or step % self.every:
            return
        lower = not self.best or self.last.mean < self.best.mean
        # losses that are not finite are never the best ones
        if lower and bool(losses.isfinite().all()):
            self.best = self.last
            self.misses = 0
            self._write(step)
        else:
            self.misses += 1

    def state(self) -> dict:
        """Return what a checkpoint holds besides the file, as plain values and tensors."""
        return {
            "best": vars(self.best) if self.best else None,
            "last": vars(self.last) if self.last else None,
            "misses": self.misses,
            "digest": self.digest,
        }

    def load_state(self, state: dict):
        """Restore `state`. `begin` restores the file."""
        self.best = HeldOutLoss(**state["best"]) if state["best"] else None
        self.last = HeldOutLoss(**state["last"]) if state["last"] else None
        self.misses = state["misses"]
        self.digest = state["digest"]

    def link_into(self, checkpoint: Path, step: int) -> dict[str, str]:
        """Add the file to a checkpoint of this step; return its name and SHA-256, {} for none."""
        # the checkpoint's own weights may be the best ones; a second copy of a denoiser is large
        if not self.best or self.best.step == step:
            return {}
        hardlink_or_copy(self.path, checkpoint / BEST_FILE)
        return {BEST_FILE: self.digest}

    def finish(self):
        """Remove the file, because the weights are saved; those in checkpoints stay."""
        self.path.unlink(missing_ok=True)
        # not empty if there are checkpoints, missing if nothing was ever written
        with suppress(OSError):
            self.checkpoints.rmdir()

    def _write(self, step: int):
        with self.training.ema_weights(), gathered(self.training.learned):
            if not self.main:
                return
            part = temporary_path(self.path)
            try:
                part.parent.mkdir(parents=True, exist_ok=True)
                self.digest = write(part, list(self.training.learned))
                part.replace(self.path)
            except OSError as failure:
                part.unlink(missing_ok=True)
                content = f"the best weights, of step {step},"
                raise write_error(content, self.checkpoints, failure) from failure

    @property
    def exhausted(self) -> bool:
        """Return True if the training has to end, because the held-out loss falls no more."""
        return bool(self.patience) and self.misses >= self.patience

    @property
    def ending(self) -> str | None:
        """Return why the training has ended before its last step, None if it has not."""
        if not self.exhausted:
            return None
        since = f"the lowest one, of step {self.best.step}" if self.best else "the training began"
        return (
            f"the held-out loss has not fallen in {self.misses} validation"
            f"{'s' * (self.misses > 1)} since {since}"
        )

    @property
    def clearly_better(self) -> bool:
        """Return True if the best validation is better than the last by more than chance.

        That is, by more than the standard error of the difference between their paired losses.
        Source: the one-standard-error rule, in The Elements of Statistical Learning, sec. 7.10,
        here in favour of the last weights instead of the simplest model.
        """
        # of a single example no error is known
        if not self.best or len(self.best.losses) < 2:
            return False
        difference = self.last.losses - self.best.losses
        error = difference.std() / len(difference) ** 0.5
        # negated, so that the best ones win if the last losses are not finite
        return not bool(difference.mean() <= error)

    def apply(self, step: int) -> int:
        """Put the weights to save in place of the trained ones; return the step they are from.

        They are the last step's, or the best ones if these are clearly better; in either case their
        moving average if there is one. Every process must call this.
        """
        self.training.apply_ema()
        if not self.clearly_better:
            return step
        with torch.no_grad(), gathered(self.training.learned, modified=True):
            if self.main:
                # the other processes save nothing, and at ZeRO 3 they get these
                weights = read(self.path, self.digest)
                for parameter, best in zip(self.training.learned, weights, strict=True):
                    parameter.copy_(best)
        return self.best.step
