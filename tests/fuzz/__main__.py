"""The command `python -m tests.fuzz`; see the package's docstring."""

import argparse
import faulthandler
import sys
import tempfile
from pathlib import Path

from . import KINDS, fuzz

MEMORY = 1024  # MiB that the whole process may take


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Read damaged and hostile files of one kind."
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    faulthandler.enable()
    with tempfile.TemporaryDirectory(prefix="fuzz ü ") as folder:
        report = fuzz(options.kind, options.cases, options.seed, Path(folder), options.first)
    print(report)
    if report.peak_mib > MEMORY:
        print(f"peak memory above {MEMORY} MiB", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
