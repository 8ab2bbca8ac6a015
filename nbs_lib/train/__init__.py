"""The room behind `2_train.ipynb`: a cache in, an adapter out.

objectives  what can be learned
student     the UNet that learns, and the teacher that it has in it
data        batches from the cache, a pure function of the step
parts       what a training is made of
loop        the training function that every process runs
log         metrics.jsonl and the progress line
validate    held-out loss, and pictures on the way
finish      weights saved, loaded back and described
checkpoint  saved and resumed states
launch      the one module that knows of processes
watch       CPU, memory, GPU, and the live loss curve
card        the model card
"""

from dataclasses import dataclass
from pathlib import Path

from ..config import Train
from ..run import Run
from .checkpoint import latest
from .data import check_cache
from .launch import check_machine, launch, process_count
from .loop import training_function
from .watch import Watch, draw_curves


@dataclass(frozen=True)
class Trained:
    """A finished training: the folder of what was learned, the last mean loss, the held-out loss first and last, what it ran
    on and what it took."""

    weights: Path
    loss: float
    held_out_loss: list[float] | None
    launched: dict
    seconds: float
    resumed_from: int


def train(config: Train) -> Trained:
    """Learn an objective, resuming from the newest checkpoint of the same parameters and inputs.

    Writes adapter/ or model/, metrics.jsonl, usage.jsonl, validation/ and the pictures of these into the run.
    Errors: FileNotFoundError without a prepared cache; DataError for a damaged one, or one without the answers asked for;
    LaunchError where the processes cannot be what was asked for, or one of them fails.
    """
    run = Run(config.run)
    run.require("prepare")
    with run.stage(config) as told:
        check_machine(config)
        check_cache(run.cache, config.teacher)
        # how many processes there are decides what each has in its optimizer
        inputs = run.inputs(config) | {"processes": str(process_count(config.processes))}
        resumed = latest(run.checkpoints, inputs)
        with Watch(run, resumed is not None) as watch:
            launched = launch(training_function, (config, run, inputs), config.processes)
        draw_curves(run)
        told |= launched | {"resumed_from": resumed.step if resumed else 0}
        told["outputs"] = [str(weights_of(run, config).relative_to(run.folder))]
    folder = run.model if config.method == "full" else run.adapter
    return Trained(folder, launched["loss"], launched["held_out_loss"], launched, watch.seconds, told["resumed_from"])


def weights_of(run: Run, config: Train) -> Path:
    """The file of what a training learned."""
    if config.method == "full":
        return run.model / "unet" / "diffusion_pytorch_model.safetensors"
    return run.adapter / "pytorch_lora_weights.safetensors"
