"""The room behind `2_train.ipynb`: a cache in, an adapter out.

guidance    what is learned: the teacher's guided prediction in one pass
data        batches from the cache, a pure function of the step
loop        the training function that every process runs
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
from .launch import launch, process_count
from .loop import training_function
from .watch import Watch, draw_curves


@dataclass(frozen=True)
class Trained:
    """A finished training: where the adapter is, its last mean loss, what it ran on and what it took."""

    adapter: Path
    loss: float
    launched: dict
    seconds: float
    resumed_from: int


def train(config: Train) -> Trained:
    """Distil the guided teacher into a LoRA, resuming from the newest checkpoint of the same parameters and inputs.

    Writes adapter/, metrics.jsonl, usage.jsonl, loss.png and usage.png into the run.
    Errors: FileNotFoundError without a prepared cache; DataError for a damaged one; LaunchError where the processes cannot
    be what was asked for, or one of them fails.
    """
    run = Run(config.run)
    run.require("prepare")
    with run.stage(config) as told:
        check_cache(run.cache)
        # how many processes there are decides what each has in its optimizer
        inputs = run.inputs(config) | {"processes": str(process_count(config.processes))}
        resumed = latest(run.checkpoints, inputs)
        with Watch(run, resumed is not None) as watch:
            launched = launch(training_function, (config, run, inputs), config.processes)
        draw_curves(run)
        told |= launched | {"resumed_from": resumed.step if resumed else 0}
        told["outputs"] = ["adapter/pytorch_lora_weights.safetensors"]
    return Trained(run.adapter, launched["loss"], launched, watch.seconds, told["resumed_from"])
