"""The blind test: two pictures without names, a vote, the next two; the tally comes at the end."""

from collections.abc import Callable

from traitlets import Bool, Dict, Int, List, Unicode

from ...run.run import Run, RunError
from ..report.html import picture_url
from .jobs import describe_failure
from .sampling_thread import SamplingThread, StoppedError
from .votes import Pair, add_vote, read_votes, tally_votes
from .widgets import LiveWidget, script, style

Draw = Callable[[str, str, int], object]  # contender, prompt, seed -> uint8 [h, w, 3]


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
