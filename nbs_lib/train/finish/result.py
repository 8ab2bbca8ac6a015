"""A finished training, and in words what it ran on and which weights it saved."""

from dataclasses import dataclass
from pathlib import Path

from ...files import from_project
from ..memory.estimate import describe_peaks
from .model_card import engine_summary


@dataclass(frozen=True)
class TrainingResult:
    """A finished training.

    weights: folder of the adapter or the model.
    loss: mean of the last tenth of the logged losses.
    held_out_loss: the first one and that of the saved weights, None if it was not measured.
    launched: what it ran on and came to, as the main process has recorded it.
    seconds: of the launch.
    resumed_from: step of the checkpoint, 0 without one.
    """

    weights: Path
    loss: float
    held_out_loss: list[float] | None
    launched: dict
    seconds: float
    resumed_from: int

    @property
    def relative_weights(self) -> str:
        """Return the folder of the weights, relative to the project."""
        return from_project(self.weights)

    @property
    def weights_source(self) -> str:
        """Return the step that the weights are from, and why, in words."""
        return self.launched["weights_source"]

    @property
    def engine(self) -> str:
        """Return the engine and the processes, in words."""
        return engine_summary(self.launched)

    @property
    def memory(self) -> str:
        """Return the planned and the measured peak of a process, in words."""
        return describe_peaks(**self.launched["memory"])
