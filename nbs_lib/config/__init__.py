"""The parameters of the notebooks: the only home of their defaults, ranges and meanings.

A notebook's `parameters` cell repeats some fields of its dataclass; `python -m nbs_lib.config` writes these lines and
`docs/parameters.md`, and a test holds them together.
"""

from .compare import REFERENCE_PROMPTS, Compare, Play
from .picturebook import MakeBase
from .prepare import DRAWN, Prepare
from .train import Train

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

PLACE = ("run", "replace", "launcher", "num_nodes", "node_rank", "master_addr", "master_port")
"""Parameters that say where and how a stage is done, and not what comes of it."""

STAGES: dict[str, type] = {"prepare": Prepare, "train": Train, "compare": Compare}
"""The three stages in their order, and the dataclass of each."""

NOTEBOOKS: dict[str, type] = {
    "1_prepare": Prepare,
    "2_train": Train,
    "3_compare": Compare,
    "playground": Play,
    "picturebook": MakeBase,
}
"""The notebooks, and the dataclass of each one's parameters."""
