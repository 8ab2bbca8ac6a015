"""The bar that a notebook prints last, in log.txt, read into words."""

import re
from pathlib import Path

from ...run.terminal_text import printable
from .state import format_duration

# bytes at the end of a file that hold its last lines
TAIL_SIZE = 4096
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# a line of the command in log.txt: what stands before it is of an earlier stage
COMMAND_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+  .*$", re.MULTILINE)
# read:  25%|###   | 140/570 [00:23<01:09,  6.18 examples/s]; tqdm cuts a long line at its end
BAR = re.compile(
    r"(?:(?P<title>[^\r\n]*?) *: +)?\d+%\|[^|]*\| *(?P<count>\d+)/(?P<total>\d+)"
    r"(?: \[[\d:]+<(?P<left>[\d:?]+), *(?P<rate>[\d.]+|\?) ?(?P<per>[^\],]*))?"
)
# what is done while a bar of this unit moves, and once it is full
BAR_ACTIVITIES = {
    "example": ("reading and encoding", "encoding"),
    "answer": ("asking the teacher", "encoding"),
    "round": ("timing the contenders", "sampling"),
    "picture": ("sampling", "measuring"),
    "figure": ("drawing", "writing the report"),
}
OTHER_BAR = ("measuring", "measuring")
# units of bars whose title says the same as the activity
UNTITLED = ("example", "answer", "round")


def read_bar(bar: re.Match) -> tuple[str, float, tuple[str, ...]]:
    """Return activity, fraction and facts of a bar that tqdm has printed."""
    count, total = int(bar["count"]), int(bar["total"])
    # tqdm turns a slow rate around: 1.13s/step
    per = (bar["per"] or "").strip()
    unit = per.removeprefix("s/").rstrip("/s")
    moving, full = BAR_ACTIVITIES.get(unit, OTHER_BAR)
    facts = [f"{count} of {total} {unit}s" if unit else f"{count} of {total}"]
    if count >= total:
        return full, 1.0, tuple(facts)
    if bar["rate"] not in (None, "?"):
        facts.append(f"{bar['rate']} {per if per.startswith('s/') else f'{unit}s/s'}")
    if bar["left"] and "?" not in bar["left"]:
        facts.append(f"{format_duration(clock_seconds(bar['left']))} left")
    title = "" if unit in UNTITLED else printable(bar["title"] or "")
    return f"{moving} {title}".strip(), count / total, tuple(facts)


def clock_seconds(text: str) -> int:
    """Return the seconds of a time such as `1:02:03` or `02:03`."""
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds


def last_output_line(log: Path) -> str:
    """Return the last line of the notebook's output since the command's last line, or ""."""
    text = COLOURS.sub("", read_tail(log).decode("utf-8", "replace"))
    output = COMMAND_LINE.split(text)[-1]
    # a bar is drawn again and again on one line, each time after \r
    return re.split(r"[\r\n]+", output.strip())[-1].strip()


def read_tail(path: Path) -> bytes:
    """Return the end of a file, b"" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_SIZE))
            return file.read()
    except OSError:
        return b""
