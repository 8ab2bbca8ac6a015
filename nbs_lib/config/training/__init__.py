"""Parameters of `2_train.ipynb`, in the order of their groups.

learning    what is learned, from which teacher, by which LoRA
optimizing  steps, optimizer and loss
train       precision, processes, checkpoints, watching: all of them as one class
"""

from .train import LATEST, NONE, Train

__all__ = ["LATEST", "NONE", "Train"]
