"""The sections of the benchmarks' page: a text, and the tables of a result."""

from .few_steps import FEW_STEPS, few_steps_text
from .gpu import GPU, gpu_table
from .lab import LAB, lab_text
from .preparation import PREPARE, prepare_text
from .processes import KILLS, MACHINES, RUNS, SOAK, kills_text, machines_text, runs_text, soak_text
from .quality import (
    BASE_PRECISION,
    FIDELITY,
    OWN_IMAGES,
    RANKS,
    base_precision_text,
    fidelity_text,
    own_images_text,
    ranks_table,
)
from .speed import (
    OPERATIONS,
    STEPS,
    TRAIN,
    TRUE_SIZE,
    operations_table,
    steps_table,
    train_table,
    true_size_line,
)

SECTIONS = {
    "fidelity": (FIDELITY, fidelity_text),
    "base-precision": (BASE_PRECISION, base_precision_text),
    "few-steps": (FEW_STEPS, few_steps_text),
    "own-images": (OWN_IMAGES, own_images_text),
    "train": (TRAIN, train_table),
    "operations": (OPERATIONS, operations_table),
    "steps": (STEPS, steps_table),
    "ranks": (RANKS, ranks_table),
    "prepare": (PREPARE, prepare_text),
    "lab": (LAB, lab_text),
    "machines": (MACHINES, machines_text),
    "soak": (SOAK, soak_text),
    "runs": (RUNS, runs_text),
    "kills": (KILLS, kills_text),
    "true-size": (TRUE_SIZE, true_size_line),
    "gpu": (GPU, gpu_table),
}
"""The heading and the rendering function of each result that is not a recipe's."""
