"""The looks of `2_train.ipynb` at a training, before and after it.

parts    the parts of a training as a table
answers  what teacher and student predict for a few examples
sheet    these predictions as pictures
"""

from .parts import parts_table
from .sheet import BatchSheet, batch_sheet

__all__ = ["BatchSheet", "batch_sheet", "parts_table"]
