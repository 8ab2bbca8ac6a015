"""A few seconds of each fuzzer; `python -m tests.fuzz KIND` runs as many cases as one likes."""

import pytest

from tests.fuzz import fuzz

CASES = {"tables": 300, "archives": 150, "records": 100, "adapters": 100, "bases": 50}


@pytest.mark.parametrize("kind", CASES)
def test_damaged_files_are_accepted_or_refused_in_a_sentence(kind, tmp_path):
    report = fuzz(kind, CASES[kind], seed=0, folder=tmp_path)
    assert report.cases == CASES[kind]
