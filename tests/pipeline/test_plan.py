"""The reasons to execute a stage again."""

import pytest

from nbs_lib.config import Compare
from nbs_lib.pipeline.plan import find_reasons
from nbs_lib.run.run import Run


@pytest.mark.parametrize(
    ("parameters", "reasons"),
    [
        ({}, []),
        ({"clip": "models/clip"}, ["clip models/clip is looked at again"]),
        ({"features": "models/dino"}, ["features models/dino is looked at again"]),
        ({"scores": ["cmmd: models/clip"]}, ["cmmd's model is looked at again"]),
    ],
    ids=["no model", "clip", "features", "scores"],
)
def test_a_model_in_a_folder_may_have_changed_unnoticed(run_folder, parameters, reasons):
    run = Run(run_folder)
    config = Compare(str(run_folder), **parameters)
    with run.stage(config) as results:
        results["outputs"] = []
    assert find_reasons(run, "compare", config) == reasons
