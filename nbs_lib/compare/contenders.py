"""Who is compared: the base and what was trained, each guided on all, some or none of its steps.

unguided      the base, one conditional pass a step (guidance scale 1)
guided        the base with guidance scale w, two passes a step
selective-N   the base, guided but for the last N % of its steps. Source: arXiv 2305.09847, where N is 20 and 50
tuned         what was trained, sampled as it was trained to be: an adapter added to the base's weights, or a whole UNet; in
              one conditional pass a step, but for fine-tuned ones, which are guided like the base
hybrid-N      tuned, and guided besides on the first N % of its steps, at a low scale
"""

import re
from dataclasses import dataclass

CONTENDERS = ("unguided", "guided", "tuned")
"""The three that every comparison has."""
HYBRID = 1.5
"""The guidance scale of a hybrid's guided steps: what was trained holds the teacher's already."""
NAMES = re.compile(r"unguided|guided|tuned|(selective|hybrid)-([1-9]\d?)")
"""Which names there are."""


@dataclass(frozen=True)
class Contender:
    """tuned: whether what was trained is sampled; guided: the share of the steps, from the first one on, that are guided, where
    that is not its own way; scale: of these steps' guidance, None for the contender's own."""

    name: str
    tuned: bool
    guided: float | None = None
    scale: float | None = None


def contender(name: str) -> Contender:
    """The contender of that name. Errors: ValueError, with the names that there are."""
    told = NAMES.fullmatch(name)
    if not told:
        raise ValueError(
            f"contender: given {name!r}; allowed is one of {', '.join(CONTENDERS)}, selective-N or hybrid-N, N in %"
        )
    kind, share = told[1], int(told[2] or 0) / 100
    if kind == "selective":
        return Contender(name, False, 1 - share)
    if kind == "hybrid":
        return Contender(name, True, share, HYBRID)
    return Contender(name, name == "tuned", {"unguided": 0.0, "guided": 1.0}.get(name))
