import json

import pytest
import torch

from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.train.monitor.metrics import MetricsLog


class Alone:
    """The Accelerator of one process, as far as MetricsLog needs it."""

    is_main_process, device = True, torch.device("cpu")


@pytest.fixture
def run(run_folder) -> Run:
    run = Run(run_folder)
    run.folder.mkdir(parents=True)
    return run


def lines(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def note(log: MetricsLog, losses: list[float], t: list[int], step: int):
    log.add_losses(torch.tensor(losses), torch.tensor(t), lambda: ["a", "b", "c"][: len(t)], step)


def test_losses_are_averaged_by_quarter_of_the_timesteps_between_lines(run):
    log = MetricsLog(run, Train(log_every=2, steps=4), 0, Alone())
    note(log, [1.0, 3.0], [0, 249], 1)
    log.log_step(1, 0.5, None, log.totals.flatten())
    note(log, [5.0, 7.0], [250, 999], 2)
    log.log_step(2, 0.5, 1.25, log.totals.flatten())
    note(log, [9.0], [500], 3)
    log.log_step(3, 0.5, None, log.totals.flatten())
    log.log_step(4, 0.25, None, log.totals.flatten())
    first, second = lines(run)
    assert (first["step"], first["loss"], first["loss_by_t"]) == (2, 4.0, [2.0, 5.0, None, 7.0])
    assert (first["lr"], first["grad_norm"]) == (0.5, 1.25) and first["examples_per_s"] > 0
    assert (second["step"], second["loss"], second["loss_by_t"], second["grad_norm"]) == (
        4,
        9.0,
        [None, None, 9.0, None],
        None,
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_step_and_examples(run, bad):
    log = MetricsLog(run, Train(), 0, Alone())
    with pytest.raises(
        FloatingPointError,
        match=f"not finite at step 7, for b .loss {bad}.; try a lower learning_rate",
    ):
        note(log, [1.0, bad, 2.0], [0, 1, 2], 7)


def test_a_resumed_training_drops_lines_after_its_checkpoint(run):
    before = ['{"step": 1, "seconds": 9.5}', '{"step": 1, "held_out_loss": 1}']
    after = ['{"step": 2, "seconds": 10}', '{"st']
    run.metrics.write_text("\n".join(before + after))
    log = MetricsLog(run, Train(steps=2, log_every=1), 1, Alone())
    note(log, [1.0], [0], 2)
    log.log_step(2, 0.1, None, log.totals.flatten())
    first_line, held_out, new = lines(run)
    assert (first_line["step"], held_out["held_out_loss"], new["step"]) == (1, 1, 2) and 9.5 <= new[
        "seconds"
    ] < 20
