"""The parameters of the notebooks: the only home of their defaults, ranges and meanings.

A notebook's `parameters` cell repeats some fields of its dataclass. `python -m nbs_lib.config`
writes these lines, and a test compares them with the dataclasses. `python -m nbs_lib.reference`
does so too, and writes the reference page of all parameters.

compare      parameters of 3_compare and of the playground
contenders   names of contenders, such as "guided at 3", parsed
fields       default, range, meaning and group of one parameter
grid_axes    axes of a grid of pictures, such as "steps: 5 | 25", parsed
hosts        parameters of a stage that several hosts work on together
measuring/   what a comparison measures: prompts of a file, scores with their models
picturebook  parameters of picturebook
prepare      parameters of 1_prepare
stage        base class of the dataclasses, with its checks
tables       parameters as text, HTML and notebook lines
training     parameters of 2_train
validation   values read from YAML, the command line and notebooks
yaml12       YAML 1.2, read and written
"""

from .compare import REFERENCE_PROMPTS, Compare, Play
from .picturebook import MakeBase
from .prepare import DRAWN, Prepare
from .training import Train

__all__ = [
    "DRAWN",
    "NOTEBOOKS",
    "PLACE",
    "REFERENCE_PROMPTS",
    "STAGES",
    "Compare",
    "MakeBase",
    "Play",
    "Prepare",
    "Train",
]

# parameters that say where and how a stage is executed: a stage with other values of them has the
# same result, so they are left out when two runs are compared
PLACE = ("run", "replace", "launcher", "num_nodes", "node_rank", "master_addr", "master_port")

# in the order of execution, which the pipeline follows
STAGES: dict[str, type] = {"prepare": Prepare, "train": Train, "compare": Compare}

# by the stem of the notebook's file, in the order of the reference page
NOTEBOOKS: dict[str, type] = {
    "1_prepare": Prepare,
    "2_train": Train,
    "3_compare": Compare,
    "playground": Play,
    "picturebook": MakeBase,
}
