"""Blind A/B: two pictures without names, a vote, the next two; the names and the tally come at the end."""

from collections.abc import Callable
from random import Random

import anywidget
import traitlets

from ...run.run import Run, RunError
from ..report.html import picture_url
from .jobs import describe_job
from .sampling_thread import SamplingThread, StoppedError
from .votes import Pair, plan, read_votes, tally, vote
from .widgets import script, style

Draw = Callable[[str, str, int], object]
"""Contender, prompt, seed -> a picture, uint8 [h, w, 3]."""


class BlindTest(anywidget.AnyWidget):
    """Pairs to vote on. The page sends `start`, `end` and `vote` with 1 (left), 2 (right) or 0 (neither) and
    the number of the pair it is on.

    pair: number, left and right (as URLs) and the prompt of the two that are shown; empty where there are none.
    cast: votes so far, of so many; said: how it stands, in words; result: a line for each two contenders, at the end.
    """

    _esm, _css = script("blind"), style()
    pair = traitlets.Dict().tag(sync=True)
    cast = traitlets.Int(0).tag(sync=True)
    of = traitlets.Int(0).tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    result = traitlets.List(traitlets.Unicode()).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)

    def __init__(self, run: Run, drawer: SamplingThread):
        super().__init__()
        self.votes, self._run, self._drawer = run.folder / "votes.jsonl", run, drawer
        self._ready, self._parameters, self._over = [], {}, False

    def start(
        self,
        contenders: list[str],
        prompts: list[str],
        count: int,
        parameters: dict,
        draw: Draw,
        rng: Random,
    ):
        """Plan the pairs and draw them one after the other; a vote can be cast as soon as the first is there.

        parameters: what a vote's line says besides. Errors: ValueError for fewer than two contenders.
        """
        pairs = plan(contenders, prompts, count, rng)
        if not self._drawer.start(lambda: self._draw(pairs, draw)):
            self.said = "Something is being drawn already; wait for it, or stop it."
            return
        self._ready, self._parameters, self._over = [], parameters, False
        self.pair, self.cast, self.of, self.result, self.busy = {}, 0, count, [], True
        self.said = "Drawing the first pair…"

    def vote(self, choice: int, number: int):
        """Record a vote for what is shown, and show the next pair. A vote for another pair is none."""
        if not self.pair or number != self.pair["number"]:
            return
        pair = self._ready[self.cast][0]
        try:
            self._run.check_links()
            vote(self.votes, pair, choice, self._parameters)
        except (ValueError, OSError, RunError) as failure:
            self.said = f"The vote is not kept: {failure}"
            return
        with self.hold_sync():  # a page that shows the count shows the next pair
            self.cast += 1
            self._show()

    def end(self):
        """End the drawing and the voting before all is voted on; the votes so far are told."""
        if not (self.busy or self.pair) or self._over:
            return
        self._over = True
        if self.busy:
            self._drawer.stop()
        self.pair, self.of, self.said = {}, self.cast, "Stopped; there are no votes."
        self._close("Stopped.")

    def _draw(self, pairs: list[Pair], draw: Draw):
        """In the drawer's thread."""
        said = ""
        try:
            for pair in pairs:
                pictures = [
                    picture_url(draw(name, pair.prompt, pair.seed))
                    for name in (pair.left, pair.right)
                ]
                self._drawer.tell(lambda pair=pair, pictures=pictures: self._add(pair, pictures))
        except StoppedError:
            said = "Stopped; the votes so far are kept."
        except Exception as failure:
            said = describe_job(failure)
        self._drawer.tell(lambda: self._ended(said))

    def _add(self, pair: Pair, pictures: list[str]):
        self._ready.append((pair, pictures))
        if not self.pair and not self._over:
            self._show()

    def _ended(self, said: str):
        self.busy = False
        if self._over:
            return
        self.of = len(self._ready)
        if said:
            self.said = said
        if self.cast == self.of:
            self._close()

    def _show(self):
        if self.cast < len(self._ready):
            pair, (left, right) = self._ready[self.cast]
            self.pair = {
                "number": self.cast + 1,
                "prompt": pair.prompt,
                "left": left,
                "right": right,
            }
            self.said = "Which is better? 1: the left one, 2: the right one, 0: neither."
            return
        self.pair = {}
        if self.busy:
            self.said = "Drawing the next pair…"
        else:
            self._close()

    def _close(self, said: str = "Done."):
        """All is voted on, or no more will be: what all votes of the run on these pairs' contenders come to."""
        shown = {name for pair, _ in self._ready for name in (pair.left, pair.right)}
        made = self._parameters["made"]
        rows = [
            row
            for row in read_votes(self.votes)
            if (two := {row["left"], row["right"]}) <= shown
            and all(row["made"].get(name) == made[name] for name in two)
        ]
        if rows:
            self.result = [str(each) for each in tally(rows)]
            votes = f"{len(rows)} vote{'s' * (len(rows) > 1)}"
            self.said = f"{said} All {votes} of this run on these contenders, with 95 % intervals:"
