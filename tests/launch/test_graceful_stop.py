"""The decision after a step: to save by steps or minutes, and to end when asked, in time."""

import json

from nbs_lib.launch.graceful_stop import GRACE, LONGEST_GRACE
from nbs_lib.launch.start import PATIENCE
from nbs_lib.pipeline.notebook import TRAIN_SHUTDOWN_TIMEOUT
from nbs_lib.pipeline.sweep.jobs import STOP_TIMEOUT

SLURM_NOTICE = 120  # seconds, as `--on slurm` asks for

SOURCE = """
import json, os, sys
import torch
from nbs_lib.config import Train
from nbs_lib.launch import graceful_stop

folder = sys.argv[1]
store = f"file://{folder}/store"
torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
clock = [0.0]
graceful_stop.time.monotonic = lambda: clock[0]

def decisions(steps, **options):
    stop = graceful_stop.StopCoordinator(Train(steps=8, **options))
    stop.begin(0)
    decided_steps = []
    for step in range(1, steps + 1):
        clock[0] += 50
        stop.start_vote(step, torch.tensor([[0.5], [2.0]], dtype=torch.float64))
        *decided, seen = stop.decision(step)
        assert seen.tolist() == [0.5, 2.0]
        decided_steps.append(decided)
    return decided_steps

decided_steps = {
    "steps": decisions(8, checkpointing_steps=3),
    "minutes": decisions(8, checkpointing_steps=0, checkpoint_minutes=2.0),
    "both": decisions(6, checkpointing_steps=2, checkpoint_minutes=1.5),
    "none": decisions(8, checkpointing_steps=0),
}
print(json.dumps(decided_steps))
sys.stdout.flush()
os._exit(0)
"""


def test_checkpoints_are_due_by_steps_by_minutes_and_at_the_end(python, tmp_path):
    process = python(SOURCE, tmp_path)
    assert process.returncode == 0, process.stderr
    results = json.loads(process.stdout)
    saved = {
        name: [step for step, (save, _) in enumerate(decided, 1) if save]
        for name, decided in results.items()
    }
    # a step takes fifty seconds here; by minutes, the first step after two minutes have gone by
    assert saved == {"steps": [3, 6, 8], "minutes": [3, 6, 8], "both": [2, 4, 6], "none": []}
    assert not any(
        stop for decided in results.values() if isinstance(decided, list) for _, stop in decided
    )


END = """
import os, signal, sys, time
import torch
from nbs_lib.config import Train
from nbs_lib.launch import graceful_stop

graceful_stop.GRACE, slowest = float(sys.argv[2]), float(sys.argv[4])
stop = graceful_stop.StopCoordinator(Train(steps=100, checkpointing_steps=0))
if sys.argv[3] == "begun":
    store = f"file://{sys.argv[1]}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    stop.begin(0)
    time.sleep(slowest)
    stop.start_vote(1, torch.zeros(1))
    stop.decision(1)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.5)
stop.start_vote(7, torch.zeros(1))
print(*stop.decision(7)[:2], flush=True)
time.sleep(30)
"""


def test_a_signal_saves_after_the_step_and_ends_in_time(python, tmp_path):
    process = python(END, tmp_path, 2.0, "begun", 0, timeout=60)
    assert process.stdout.split() == ["True", "True"] and process.returncode == 143
    process = python(END, tmp_path, 60.0, "not begun", 0, timeout=60)
    assert process.stdout == "" and process.returncode == 143, (
        "before the first step there is nothing to save"
    )


def test_slow_steps_get_the_time_of_two(python, tmp_path):
    process = python(END, tmp_path, 0.1, "begun", 1.0, timeout=60)
    assert process.stdout.split() == ["True", "True"] and process.returncode == 143


def test_launchers_and_schedulers_wait_longer_than_a_training_may_take_to_end():
    shutdown = TRAIN_SHUTDOWN_TIMEOUT / 2
    assert GRACE < 5 and LONGEST_GRACE < PATIENCE < shutdown < STOP_TIMEOUT < SLURM_NOTICE
