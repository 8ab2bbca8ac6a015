"""Votes on pairs of pictures without names: planned, saved, counted.

RUN/votes.jsonl has a line for each vote: prompt, seed, left and right (contenders), choice (1: left
is better, 2: right is, 0: neither), steps, scheduler, made (by contender a hash over everything
that its pictures depend on), time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations, cycle, islice, product
from pathlib import Path
from random import Random

from ...files import append_jsonl, read_jsonl
from ..metrics.confidence import wilson


@dataclass(frozen=True)
class Pair:
    """Two contenders' pictures of one prompt, from the same noise."""

    prompt: str
    seed: int
    left: str
    right: str


def plan_pairs(contenders: list[str], prompts: list[str], count: int, rng: Random) -> list[Pair]:
    """Return so many pairs, with seeds and sides by chance.

    Errors: ValueError for fewer than two contenders.
    """
    if len(contenders) < 2:
        names = ", ".join(contenders) or "none"
        raise ValueError(f"contenders: given {names}; a blind comparison needs two or more")
    shuffled_prompts = rng.sample(prompts, len(prompts))
    # every two contenders on every prompt before any repeats: one prompt alone may favour a side
    schedule = cycle(product(shuffled_prompts, combinations(contenders, 2)))
    pairs = []
    for prompt, two in islice(schedule, count):
        left, right = rng.sample(two, 2)
        pairs.append(Pair(prompt, rng.randrange(2**31), left, right))
    return pairs


def add_vote(path: Path, pair: Pair, choice: int, parameters: dict):
    """Add a vote to the file.

    choice: 1 (left), 2 (right) or 0 (neither)
    parameters: further values of the line
    Errors: ValueError for another choice.
    """
    if choice not in (0, 1, 2):
        raise ValueError(f"choice: given {choice!r}; allowed is 1 (left), 2 (right) or 0 (neither)")
    time = datetime.now(UTC).isoformat(timespec="seconds")
    append_jsonl(path, asdict(pair) | {"choice": choice} | parameters | {"time": time})


def read_votes(path: Path) -> list[dict]:
    """Return the votes of the file, without lines that are none; [] without a file."""
    return [row for row in read_jsonl(path) if _is_vote(row)]


def _is_vote(row):
    has_names = all(isinstance(row.get(side), str) for side in ("left", "right"))
    return has_names and row.get("choice") in (0, 1, 2) and isinstance(row.get("made"), dict)


@dataclass(frozen=True)
class Tally:
    """The votes on two contenders: for a, for b, for neither."""

    a: str
    b: str
    for_a: int
    for_b: int
    neither: int
    # a's share of the votes for either, None without any; low, high: its 95 % interval
    rate: float | None
    low: float
    high: float

    def __str__(self) -> str:
        if self.rate is None:
            return f"{self.a} and {self.b}: no vote for either, {self.neither} for neither"
        interval = f"[{100 * self.low:.0f}, {100 * self.high:.0f}]"
        share = f"{self.a} is better in {100 * self.rate:.0f} % {interval}"
        # a colon: a contender's name may end with a number
        votes = f"{self.a}: {self.for_a}, {self.b}: {self.for_b}, neither: {self.neither}"
        return f"{votes}; {share}"


def tally_votes(votes: Sequence[dict]) -> list[Tally]:
    """Return the tally of each two contenders; a vote for neither counts in no rate."""
    counts = {}
    for row in votes:
        two = tuple(sorted((row["left"], row["right"])))
        # None for neither
        winner = {1: row["left"], 2: row["right"]}.get(row["choice"])
        counts.setdefault(two, Counter())[winner] += 1
    tallies = []
    for (a, b), count in sorted(counts.items()):
        decided = count[a] + count[b]
        rate = count[a] / decided if decided else None
        interval = wilson(count[a], decided)
        tallies.append(Tally(a, b, count[a], count[b], count[None], rate, *interval))
    return tallies
