"""Blind votes: which pairs are shown, and what the votes come to. No widget, no torch.

RUN/votes.jsonl has a line for each vote: prompt, seed, left and right (contenders), choice (1: left is better, 2: right is,
0: neither), steps, scheduler, made (of each contender a hash over all that its pictures depend on), time.
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations, cycle, islice, product
from pathlib import Path
from random import Random
from typing import Any

from ...files import append_jsonl, read_jsonl

Z = 1.959963984540054
"""Of the normal distribution, for 95 % between -Z and Z."""


@dataclass(frozen=True)
class Pair:
    """Two contenders' pictures of one prompt, from the same noise."""

    prompt: str
    seed: int
    left: str
    right: str


def plan(contenders: list[str], prompts: list[str], count: int, rng: Random) -> list[Pair]:
    """So many pairs: all pairs of contenders and all prompts in turns, each with a seed of its own, sides by chance.

    Errors: ValueError for fewer than two contenders.
    """
    if len(contenders) < 2:
        raise ValueError(
            f"contenders: given {', '.join(contenders) or 'none'}; a blind comparison needs two or more"
        )
    pairs = []
    # every pair on every prompt before one comes again: else a pair might be judged on one prompt alone
    for prompt, two in islice(
        cycle(product(shuffled(prompts, rng), list(combinations(contenders, 2)))), count
    ):
        left, right = shuffled(two, rng)
        pairs.append(Pair(prompt, rng.randrange(2**31), left, right))
    return pairs


def shuffled(items: Any, rng: Random) -> list:
    return rng.sample(list(items), len(items))


def vote(path: Path, pair: Pair, choice: int, parameters: dict[str, Any]) -> dict[str, Any]:
    """Add a vote to the file; returns the line. Errors: ValueError for another choice than 0, 1 or 2."""
    if choice not in (0, 1, 2):
        raise ValueError(f"choice: given {choice!r}; allowed is 1 (left), 2 (right) or 0 (neither)")
    row = (
        asdict(pair)
        | {"choice": choice}
        | parameters
        | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    )
    append_jsonl(path, row)
    return row


def read_votes(path: Path) -> list[dict[str, Any]]:
    """Return the votes of the file, without lines that are none; [] without a file."""
    return [row for row in read_jsonl(path) if _is_vote(row)]


def _is_vote(row: dict[str, Any]) -> bool:
    texts = all(isinstance(row.get(name), str) for name in ("left", "right"))
    return texts and row.get("choice") in (0, 1, 2) and isinstance(row.get("made"), dict)


@dataclass(frozen=True)
class Tally:
    """Of two contenders: votes for a, for b, for neither; rate: a's share of the first two, in a 95 % interval."""

    a: str
    b: str
    for_a: int
    for_b: int
    neither: int
    rate: float | None
    low: float
    high: float

    def __str__(self) -> str:
        if self.rate is None:
            return f"{self.a} and {self.b}: no vote for either, {self.neither} for neither"
        share = f"{self.a} is better in {100 * self.rate:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"
        return f"{self.a} {self.for_a}, {self.b} {self.for_b}, neither {self.neither}: {share}"


def tally(votes: list[dict[str, Any]]) -> list[Tally]:
    """What votes come to, for each two contenders; a vote for neither is counted, but is in no rate."""
    counts: dict[tuple[str, str], Counter] = {}
    for row in votes:
        two = tuple(sorted((row["left"], row["right"])))
        winner = {1: row["left"], 2: row["right"]}.get(row["choice"])
        counts.setdefault(two, Counter())[winner] += 1
    tallies = []
    for (a, b), count in sorted(counts.items()):
        decided = count[a] + count[b]
        rate = count[a] / decided if decided else None
        tallies.append(
            Tally(a, b, count[a], count[b], count[None], rate, *wilson(count[a], decided))
        )
    return tallies


def wilson(successes: int, trials: int, z: float = Z) -> tuple[float, float]:
    """The score interval of a binomial rate; all of [0, 1] where there are no trials.

    (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n). Source: Wilson 1927, J. Am. Stat. Assoc. 22 (158), 209-212.
    """
    if not trials:
        return 0.0, 1.0
    p, n = successes / trials, trials
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))
