"""What is decided after a step: to save by steps or by minutes, and to end when asked, in what time."""

import json

from nbs_lib.pipeline.notebook import TRAIN_SHUTDOWN_TIMEOUT
from nbs_lib.pipeline.sweep.jobs import STOP_TIMEOUT
from nbs_lib.train.launch.graceful_stop import GRACE, LONGEST_GRACE
from nbs_lib.train.launch.launcher import PATIENCE

SLURM_S_NOTICE = 120  # seconds, as `--on slurm` asks for

SOURCE = """
import json, os, sys
import torch
from nbs_lib.config import Train
from nbs_lib.train import stop

folder = sys.argv[1]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
clock = [0.0]
stop.time.monotonic = lambda: clock[0]

def decisions(steps, **how):
    pause = stop.Pause(Train(steps=8, **how))
    pause.begin(0)
    told = []
    for step in range(1, steps + 1):
        clock[0] += 50
        pause.ask(step, torch.tensor([[0.5], [2.0]], dtype=torch.float64))
        *decided, seen = pause.agreed(step)
        assert seen.tolist() == [0.5, 2.0]
        told.append(decided)
    return told

told = {
    "steps": decisions(8, checkpoint_every=3),
    "minutes": decisions(8, checkpoint_every=0, checkpoint_minutes=2.0),
    "both": decisions(6, checkpoint_every=2, checkpoint_minutes=1.5),
    "none": decisions(8, checkpoint_every=0),
}
print(json.dumps(told))
sys.stdout.flush()
os._exit(0)
"""


def test_checkpoints_come_by_steps_by_minutes_and_at_the_end(python, tmp_path):
    done = python(SOURCE, tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    saved = {
        name: [step for step, (save, _) in enumerate(decided, 1) if save]
        for name, decided in told.items()
    }
    # a step takes fifty seconds here; by minutes, the first step after two minutes have gone by
    assert saved == {"steps": [3, 6, 8], "minutes": [3, 6, 8], "both": [2, 4, 6], "none": []}
    assert not any(
        stop for decided in told.values() if isinstance(decided, list) for _, stop in decided
    )


END = """
import os, signal, sys, time
import torch
from nbs_lib.config import Train
from nbs_lib.train import stop

stop.GRACE, slowest = float(sys.argv[2]), float(sys.argv[4])
pause = stop.Pause(Train(steps=100, checkpoint_every=0))
if sys.argv[3] == "begun":
    torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=0, world_size=1)
    pause.begin(0)
    time.sleep(slowest)
    pause.ask(1, torch.zeros(1))
    pause.agreed(1)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.5)
pause.ask(7, torch.zeros(1))
print(*pause.agreed(7)[:2], flush=True)
time.sleep(30)
"""


def test_asked_to_end_it_saves_after_the_step_and_ends_in_time_wherever_it_stands(python, tmp_path):
    done = python(END, tmp_path, 2.0, "begun", 0, timeout=60)
    assert done.stdout.split() == ["True", "True"] and done.returncode == 143
    done = python(END, tmp_path, 60.0, "not begun", 0, timeout=60)
    assert done.stdout == "" and done.returncode == 143, (
        "before the first step there is nothing to save"
    )


def test_slow_steps_are_given_the_time_of_two(python, tmp_path):
    done = python(END, tmp_path, 0.1, "begun", 1.0, timeout=60)
    assert done.stdout.split() == ["True", "True"] and done.returncode == 143


def test_launchers_and_schedulers_wait_longer_than_a_training_may_take_to_end():
    shutdown = TRAIN_SHUTDOWN_TIMEOUT / 2
    assert GRACE < 5 and LONGEST_GRACE < PATIENCE < shutdown < STOP_TIMEOUT < SLURM_S_NOTICE
