"""The blind test: two pictures without names, a vote, the next two; the tally comes at the end.

RUN/votes.jsonl has a line for each vote: prompt, seed, left and right (contenders), choice (1: left
is better, 2: right is, 0: neither), steps, scheduler, made (by contender a hash over everything
that its pictures depend on), time.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations, cycle, islice, product
from pathlib import Path
from random import Random

from traitlets import Bool, Dict, Int, List, Unicode

from ...files import append_jsonl, read_jsonl
from ...run.run import Run, RunError
from ..metrics.confidence import wilson
from ..report.html import picture_url
from .jobs import describe_failure
from .sampling_thread import SamplingThread, StoppedError
from .widgets import LiveWidget, script, style

Draw = Callable[[str, str, int], object]  # contender, prompt, seed -> uint8 [h, w, 3]


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
        return f"{self.a} {self.for_a}, {self.b} {self.for_b}, neither {self.neither}: {share}"


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


class BlindTest(LiveWidget):
    """Pairs to vote on.

    The page sends `start`, `end` and `vote` (choice, number of the pair).
    n_votes, n_pairs: votes so far, and pairs in all
    """

    _esm = script("blind")
    _css = style()
    # number, left and right (as URLs) and prompt; empty without a pair
    pair = Dict()
    n_votes = Int(0)
    n_pairs = Int(0)
    message = Unicode()  # the state, in words
    # a line for each two contenders, at the end
    results = List(Unicode())
    busy = Bool(False)

    def __init__(self, run: Run, thread: SamplingThread):
        super().__init__()
        self.path = run.folder / "votes.jsonl"
        self._run = run
        self._thread = thread
        self._ready = []
        self._parameters = {}
        self._ended = False

    def start(self, pairs: list[Pair], parameters: dict, draw: Draw):
        """Draw the pairs one after the other; a vote is possible once the first is drawn.

        parameters: further values of a vote's line
        """
        if not self._thread.start(lambda: self._draw(pairs, draw)):
            self.message = "Something is being drawn already; wait for it, or stop it."
            return
        self._ready = []
        self._parameters = parameters
        self._ended = False
        self.pair = {}
        self.n_votes = 0
        self.n_pairs = len(pairs)
        self.results = []
        self.busy = True
        self.message = "Drawing the first pair…"

    def vote(self, choice: int, number: int):
        """Record a vote and show the next pair; a vote on a pair that is not shown is ignored."""
        # a second view of the page may still show the pair before
        if not self.pair or number != self.pair["number"]:
            return
        pair, _ = self._ready[self.n_votes]
        try:
            # a link in the run could lead the file out of it
            self._run.check_links()
            add_vote(self.path, pair, choice, self._parameters)
        except (ValueError, OSError, RunError) as failure:
            self.message = f"The vote is not kept: {failure}"
            return
        with self.hold_sync():  # a page that shows the count shows the next pair
            self.n_votes += 1
            self._show_next()

    def end(self):
        """End the drawing and the voting before all pairs have a vote, and show the tally."""
        if not (self.busy or self.pair) or self._ended:
            return
        self._ended = True
        if self.busy:
            self._thread.stop()
        self.pair = {}
        self.n_pairs = self.n_votes
        # replaced by the tally if there are any
        self.message = "Stopped; there are no votes."
        self._show_tally("Stopped.")

    def _draw(self, pairs, draw):
        """Draw the pairs, in the sampling thread."""
        message = ""
        try:
            for pair in pairs:
                pictures = [draw(name, pair.prompt, pair.seed) for name in (pair.left, pair.right)]
                urls = [picture_url(picture) for picture in pictures]
                self._thread.post(lambda pair=pair, urls=urls: self._add(pair, urls))
        except StoppedError:
            message = "Stopped; the votes so far are kept."
        except Exception as failure:
            message = describe_failure(failure)
        self._thread.post(lambda: self._finish_drawing(message))

    def _add(self, pair, urls):
        self._ready.append((pair, urls))
        if not self.pair and not self._ended:
            self._show_next()

    def _finish_drawing(self, message):
        self.busy = False
        if self._ended:
            return
        self.n_pairs = len(self._ready)
        self.message = message or self.message
        if self.n_votes == self.n_pairs:
            self._show_tally("Done.")

    def _show_next(self):
        if self.n_votes < len(self._ready):
            pair, (left, right) = self._ready[self.n_votes]
            number = self.n_votes + 1
            self.pair = {"number": number, "prompt": pair.prompt, "left": left, "right": right}
            self.message = "Which is better? 1: the left one, 2: the right one, 0: neither."
            return
        self.pair = {}
        if self.busy:
            self.message = "Drawing the next pair…"
        else:
            self._show_tally("Done.")

    def _show_tally(self, opening):
        """Show the tally of all votes of the run on these contenders, of earlier tests too."""
        current = self._parameters["made"]
        names = {name for pair, _ in self._ready for name in (pair.left, pair.right)}
        rows = []
        for row in read_votes(self.path):
            two = {row["left"], row["right"]}
            # a contender of the same name may have been trained again since
            if two <= names and all(row["made"].get(name) == current[name] for name in two):
                rows.append(row)
        if rows:
            self.results = [str(tally) for tally in tally_votes(rows)]
            votes = "1 vote" if len(rows) == 1 else f"{len(rows)} votes"
            where = "of this run on these contenders"
            self.message = f"{opening} All {votes} {where}, with 95 % intervals:"
