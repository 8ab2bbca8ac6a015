"""Fuzzers: damaged and hostile files, each read by the library as a user's file would be.

    python -m tests.fuzz tables [--cases 20000] [--seed 0] [--first 0]

A fuzzer is a module of this package with a class `Fuzzer` (see `Fuzzer` below). A case depends on
the seed and its number alone, so `--first NUMBER --cases 1` repeats one. A case may be accepted or
refused in a sentence; any other exception, and a case that takes longer than `LIMIT` seconds, is a
failure.
"""

import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Protocol

KINDS = ("tables", "archives", "records", "adapters", "bases")
LIMIT = 10  # seconds for one case


class Fuzzer(Protocol):
    """The interface of a module of this package."""

    def __init__(self, folder: Path):
        """Write the undamaged material once. folder: empty, this fuzzer's own."""

    def case(self, rng: Random) -> str:
        """Write one case and let the library read it.

        Return a word for the outcome, such as "accepted" or "refused".
        Errors: any exception that the library should not raise; AssertionError for a wrong result.
        """


class HangError(BaseException):
    """A case took longer than `LIMIT` seconds.

    It is not an Exception, so that no handler of the library swallows it.
    """


class CaseError(AssertionError):
    """A case failed: its kind, seed and number; the cause is chained."""


@dataclass
class Report:
    """The result of many cases.

    slowest: seconds and number of the slowest case.
    peak_mib: peak memory of this process.
    """

    kind: str
    seed: int
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)

    @property
    def peak_mib(self) -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def __str__(self) -> str:
        outcomes = ", ".join(
            f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items())
        )
        return (
            f"{self.kind}: {self.cases} cases of seed {self.seed} in {self.seconds:.0f} s: "
            f"{outcomes}; slowest {self.slowest[0]:.2f} s (case {self.slowest[1]}); "
            f"peak {self.peak_mib:.0f} MiB"
        )


def fuzz(kind: str, cases: int, seed: int, folder: Path, first: int = 0) -> Report:
    """Run cases `first` to `first + cases` of a fuzzer in an empty folder.

    Errors: CaseError at the first failure.
    """
    fuzzer: Fuzzer = import_module(f"{__name__}.{kind}").Fuzzer(folder)
    report = Report(kind, seed)
    begin = time.monotonic()
    for number in range(first, first + cases):
        start = time.monotonic()
        try:
            with _time_limit(LIMIT):
                outcome = fuzzer.case(Random(f"{kind} {seed} {number}"))
        except (Exception, HangError) as failure:
            raise CaseError(
                f"python -m tests.fuzz {kind} --seed {seed} --first {number} --cases 1"
            ) from failure
        report.outcomes[outcome] += 1
        report.slowest = max(report.slowest, (time.monotonic() - start, number))
        report.cases += 1
    report.seconds = time.monotonic() - begin
    return report


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def expire(*_):
        raise HangError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def damaged(rng: Random, data: bytes) -> bytes:
    """Return `data` with random damage.

    Bytes are flipped, cut, repeated, overwritten by extreme numbers, or spliced.
    """
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(data)) if data else 0
        size = rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[place:]
            case 2:
                del data[place : place + size]
            case 3:
                data[place : place + size] = rng.choice((b"\0", b"\xff", b"\x7f")) * size
            case 4:
                data[place:place] = data[place : place + size] * rng.choice((1, 2, 100))
            case 5:
                other = rng.randrange(len(data)) if data else 0
                data[place : place + size] = data[other : other + size]
    return bytes(data)
