"""Two runs compared: parameters, versions, numbers and pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import PLACE, STAGES
from ...run.out_of_date import outdated_stages
from ...run.record import is_number
from ...run.run import Run
from ...untrusted_files import read_bounded
from ..recipes import result_parameters
from .pictures import MAX_SIZE, open_picture
from .table import SHORT, run_values

# words in the names of numbers that differ between two executions of the very same run
COSTS = (
    "seconds",
    "memory",
    "watch_share",
    "per_s",
    "time_ratio",
    "measured",
    "looked_at",
    "encoded",
    "reused",
)
MAX_TEXT = 60
# differences that a line of the summary shows
MAX_EXAMPLES = 3


@dataclass(frozen=True)
class Difference:
    """The differences of two runs, {name: [first, second]}, None for a value that a run lacks.

    parameters: of all stages
    versions: of the libraries
    numbers: of the results, without costs
    costs: seconds and memory, which are never equal
    pictures: mean distance of two pictures, 0 to 255, None if they cannot be compared
    compared: number of compared pictures
    """

    parameters: dict[str, list]
    versions: dict[str, list]
    numbers: dict[str, list]
    costs: dict[str, list]
    pictures: dict[str, float | None]
    compared: int

    @property
    def same(self) -> bool:
        """True if parameters, numbers and pictures are all equal."""
        return not (self.parameters or self.numbers or self.pictures)


def difference(first: Run, second: Run) -> Difference:
    """Compare two runs. Errors: RunError for a damaged record."""
    records = [first.read(), second.read()]
    numbers = _differences(_numbers(first, records[0]), _numbers(second, records[1]))
    costs = set(filter(_is_cost, numbers))
    names = set(picture_names(first)) | set(picture_names(second))
    if any("compare" in outdated_stages(record) for record in records):
        # these pictures are of an adapter that was replaced
        names = set()
    pictures = {}
    for name in sorted(names):
        paths = [run.compare / "pictures" / name for run in (first, second)]
        value = distance(*paths)
        # None is a difference too
        if value != 0.0:
            pictures[name] = value
    return Difference(
        parameters=_differences(*map(_parameters, records)),
        versions=_differences(*(record.get("versions", {}) for record in records)),
        numbers={name: values for name, values in numbers.items() if name not in costs},
        costs={name: values for name, values in numbers.items() if name in costs},
        pictures=pictures,
        compared=len(names),
    )


def _is_cost(name: str) -> bool:
    return any(word in name for word in COSTS)


def _parameters(record: dict) -> dict:
    """Return the parameters of all stages by dotted name."""
    parameters = {}
    for stage in STAGES:
        fields = record.get("stages", {}).get(stage)
        # of a stage that has not begun, the parameters it was requested with
        values = record.get("asked", {}).get(stage, {})
        if fields is not None:
            values = fields.get("parameters", {})
        for name, value in result_parameters(values).items():
            parameters[f"{stage}.{name}"] = value
    return parameters


def _numbers(run: Run, record: dict) -> dict:
    """Return the numbers of a run's results by dotted name."""
    excluded = _parameters(record)
    numbers = {}
    for name, value in run_values(run).items():
        stage, _, last = name.rpartition(".")
        if stage and is_number(value) and name not in excluded and last not in PLACE:
            numbers[name] = value
    return numbers


def _differences(first: dict, second: dict) -> dict[str, list]:
    differences = {}
    # a dict and no set, to keep the order
    for name in first | second:
        if first.get(name) != second.get(name):
            differences[name] = [first.get(name), second.get(name)]
    return differences


def picture_names(run: Run) -> list[str]:
    """Return the sorted file names of a run's compared pictures."""
    folder = run.compare / "pictures"
    return sorted(path.name for path in folder.glob("*.png")) if folder.is_dir() else []


def distance(first: Path, second: Path) -> float | None:
    """Return the mean difference of two pictures' values, 0.0 for equal files.

    None if one is missing or damaged, or their sizes differ.
    """
    # equal bytes need no decoding, and most pictures of a repeated run are equal
    try:
        if read_bounded(first, MAX_SIZE) == read_bounded(second, MAX_SIZE):
            return 0.0
    except (OSError, ValueError):
        return None
    from PIL import ImageChops, ImageStat

    a = open_picture(first)
    b = open_picture(second)
    if a is None or b is None or a.size != b.size:
        return None
    means = ImageStat.Stat(ImageChops.difference(a, b)).mean
    return sum(means) / len(means)


def describe_difference(
    first: Run,
    second: Run,
    result: Difference,
) -> list[str]:
    """Return the difference as lines of text: five that sum it up, then every value."""
    lines = [f"{first.name}  |  {second.name}", *summarize(result)]
    for title in ("parameters", "versions", "numbers", "costs"):
        if differences := getattr(result, title):
            lines += ["", f"{title}:"]
            lines += [f"  {name:32}  {_pair(values)}" for name, values in differences.items()]
    if result.pictures:
        lines += ["", "pictures:"]
    for name, value in result.pictures.items():
        text = "only one, damaged, or of another size"
        if value is not None:
            text = f"{value:.2f} of 255 apart on average"
        lines.append(f"  {name:32}  {text}")
    return lines


def summarize(result: Difference) -> list[str]:
    """Return a line about the parameters, versions, numbers, costs and pictures each."""
    # the numbers that people look for, by their short names
    headlines = {
        short: result.numbers[name] for short, name in SHORT.items() if name in result.numbers
    }
    seconds = {name: pair for name, pair in result.costs.items() if name.endswith(".seconds")}
    return [
        f"parameters: {_count(result.parameters, result.parameters)}",
        f"versions:   {_count(result.versions, result.versions)}",
        f"numbers:    {_count(result.numbers, headlines or result.numbers)}",
        f"costs:      {_count(result.costs, seconds)}",
        f"pictures:   {_summarize_pictures(result)}",
    ]


def _count(differences: dict[str, list], examples: dict[str, list]) -> str:
    """Return how many values differ, with the first of some."""
    if not differences:
        return "equal"
    texts = [f"{name} {_pair(values)}" for name, values in list(examples.items())[:MAX_EXAMPLES]]
    count = f"{len(differences)} differ"
    return f"{count}: {', '.join(texts)}" if texts else count


def _summarize_pictures(result: Difference) -> str:
    # "0 of 0 equal" would sound like a result
    if not result.compared:
        return "none"
    text = f"{result.compared - len(result.pictures)} of {result.compared} equal"
    distances = [(value, name) for name, value in result.pictures.items() if value is not None]
    if not distances:
        return text
    mean = sum(value for value, _ in distances) / len(distances)
    value, name = max(distances)
    return f"{text}, the others {mean:.1f} of 255 apart; {name} the most, {value:.1f}"


def _pair(values: list) -> str:
    return f"{_short(values[0])} | {_short(values[1])}"


def _short(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
