"""Two runs against one another: parameters, versions, numbers, pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import PLACE, STAGES
from ...run.out_of_date import outdated_stages
from ...run.record import is_number
from ...run.run import Run
from ...untrusted_files import read_bounded
from .pictures import LARGEST, open_picture
from .table import Row, run_values

TIMES = (
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
"""Words in the names of numbers that differ from one time to the next of the very same run."""


@dataclass(frozen=True)
class Difference:
    """Where two runs differ, {name: [of the first, of the second]}; None for what one of them has not.

    numbers: what they came to, without what it cost; costs: seconds and memory, which are never equal; pictures: the mean
    distance of two, from 0 to 255. same: whether parameters, numbers and pictures are all equal.
    """

    parameters: dict[str, list]
    versions: dict[str, list]
    numbers: dict[str, list]
    costs: dict[str, list]
    pictures: dict[str, float | None]
    compared: int

    @property
    def same(self) -> bool:
        return not (self.parameters or self.numbers or self.pictures)


def difference(first: Run, second: Run) -> Difference:
    """Where two runs differ. Errors: RunError for a damaged record."""
    records, values = (
        [each.read() for each in (first, second)],
        [run_values(each) for each in (first, second)],
    )
    parameters = [_parameters(record) for record in records]
    numbers = [
        {
            name: value
            for name, value in each.items()
            if _is_number(name, value)
            and name not in parameters[place]
            and name.rpartition(".")[2] not in PLACE
        }
        for place, each in enumerate(values)
    ]
    differ = _differ(*numbers)
    costs = {name: both for name, both in differ.items() if any(word in name for word in TIMES)}
    past = any(
        "compare" in outdated_stages(record) for record in records
    )  # pictures of an adapter that is no more
    names = set() if past else {name for each in (first, second) for name in pictures_of(each)}
    drawn = [each.compare / "pictures" for each in (first, second)]
    distances = {name: distance(*(folder / name for folder in drawn)) for name in sorted(names)}
    return Difference(
        parameters=_differ(*parameters),
        versions=_differ(*(record.get("versions", {}) for record in records)),
        numbers={name: both for name, both in differ.items() if name not in costs},
        costs=costs,
        pictures={name: far for name, far in distances.items() if far != 0.0},
        compared=len(names),
    )


def _parameters(record: dict[str, Any]) -> Row:
    told = {stage: each.get("parameters", {}) for stage, each in record.get("stages", {}).items()}
    told = record.get("asked", {}) | told
    return {
        f"{stage}.{name}": value
        for stage in STAGES
        for name, value in told.get(stage, {}).items()
        if name not in PLACE
    }


def _is_number(name: str, value: Any) -> bool:
    return "." in name and is_number(value)


def _differ(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list]:
    names = list(dict.fromkeys([*first, *second]))
    return {
        name: [first.get(name), second.get(name)]
        for name in names
        if first.get(name) != second.get(name)
    }


def pictures_of(run: Run) -> list[str]:
    folder = run.compare / "pictures"
    return sorted(path.name for path in folder.glob("*.png")) if folder.is_dir() else []


def distance(first: Path, second: Path) -> float | None:
    """The mean difference of two pictures' values, 0.0 for equal files; None where one is missing, damaged or of another
    size."""
    try:
        if read_bounded(first, LARGEST) == read_bounded(second, LARGEST):
            return 0.0
    except (OSError, ValueError):
        return None
    from PIL import ImageChops, ImageStat

    a, b = open_picture(first), open_picture(second)
    if a is None or b is None or a.size != b.size:
        return None
    means = ImageStat.Stat(ImageChops.difference(a, b)).mean
    return sum(means) / len(means)


def describe_difference(first: Run, second: Run, found: Difference) -> list[str]:
    """The difference as lines of text."""
    lines = [f"{'':34}  {first.name}  |  {second.name}"]
    for title in ("parameters", "versions", "numbers", "costs"):
        differ = getattr(found, title)
        lines += [f"{title}: {'equal' if not differ else ''}".rstrip()]
        lines += [f"  {name:32}  {_short(a)}  |  {_short(b)}" for name, (a, b) in differ.items()]
    equal = found.compared - len(found.pictures)
    lines += [
        f"pictures: {equal} of {found.compared} equal" if found.compared else "pictures: none"
    ]
    for name, far in found.pictures.items():
        apart = (
            "only one, damaged, or of another size"
            if far is None
            else f"{far:.2f} of 255 apart on average"
        )
        lines.append(f"  {name:32}  {apart}")
    return lines


def _short(value: Any) -> str:
    text = "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
