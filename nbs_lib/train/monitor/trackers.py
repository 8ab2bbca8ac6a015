"""Trackers of a training: TensorBoard, W&B, trackio and MLflow get its metrics and pictures.

They are accelerate's. The main process alone starts them, each by itself, and one that fails is
switched off with a sentence: metrics.jsonl has everything a tracker gets.

    trackers/
      ids.json      {"wandb": "1f3a5c7e", …}: the tracker's run, which a resumed training continues
      tensorboard/, wandb/, trackio/, mlflow/    the files of each

Nothing leaves the machine unless the user's own variables ask for it: WANDB_MODE=online,
TRACKIO_SPACE_ID, TRACKIO_SERVER_URL, MLFLOW_TRACKING_URI.
"""

import io
import json
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from ...config import Train
from ...files import remove, write_atomic
from ...launch.errors import first_line
from ...run.progress_bar import write_above_bar
from ...run.run import Run
from ...untrusted_files import read_json
from .tracked_values import flat_values, plain_parameters, usage_values

PROJECT = "onepass"  # of every tracker that groups its runs
IDS_FILE = "ids.json"
PATIENCE = 60  # seconds that a tracker may take to close


class Trackers:
    """The trackers that a training has switched on, empty in all processes but the main one."""

    def __init__(self, run: Run, config: Train, first: int, accelerator):
        """Start the trackers. first: steps that are finished; 0 begins new runs of the trackers."""
        self.run = run
        self.config = config
        self.first = first
        self.accelerator = accelerator
        self.folder = run.folder / "trackers"
        self.active: list = []
        self.ids: dict[str, str] = {}
        if not accelerator.is_main_process:
            return
        if first and (self.folder / IDS_FILE).is_file():
            self.ids = read_json(self.folder / IDS_FILE)
        if not first:
            remove(self.folder)
        for name in config.trackers:
            self._start(name)

    def log(self, line: dict):
        """Log a line of metrics.jsonl; one with a loss is joined by the newest usage."""
        values = flat_values(line)
        if self.active and "loss" in line:
            values |= usage_values(self.run.usage)
        step = values.pop("step")
        self._call(lambda tracker: tracker.log(values, step=step))

    def log_picture(self, name: str, path: Path, step: int):
        """Log a picture that a file holds."""
        self._call(lambda tracker: PICTURE_LOGGERS[tracker.name](tracker, name, path, step))

    def finish(self):
        """Close the trackers."""
        # not by accelerate's `end_training`, which destroys the process groups: gloo's destructor
        # waits for its threads with Python's lock held, and these may want the lock. The groups end
        # with their process.
        self._call(_finish)
        self.active = []

    def _start(self, name: str):
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for variable, value in default_variables(name, folder).items():
            os.environ.setdefault(variable, value)
        known = self.ids.get(name)
        try:
            # trackio prints how to open its page, which the documentation says too
            with redirect_stdout(io.StringIO()):
                tracker = self._init(name, self._options(name, folder))
            if name == "mlflow":
                self.ids[name] = tracker.tracker.info.run_id
                # MLflow refuses another value for a parameter that it has
                if not known:
                    tracker.store_init_configuration(plain_parameters(self.config))
        except Exception as failure:
            _report(name, failure)
            return
        self.active.append(tracker)
        write_atomic(self.folder / IDS_FILE, json.dumps(self.ids))

    def _init(self, name: str, options: dict):
        """Return a tracker of accelerate that has begun its run, or continues it."""
        # one by one: accelerate starts all of its trackers, and the first failure would end that
        self.accelerator.log_with = [name]
        self.accelerator.trackers = []
        # TensorBoard's is a folder, which has its name already
        project = "" if name == "tensorboard" else PROJECT
        self.accelerator.init_trackers(project, init_kwargs={name: options})
        return self.accelerator.trackers[0]

    def _options(self, name: str, folder: Path) -> dict:
        """Return the options of a tracker's own `init`."""
        if name == "tensorboard":
            # hides the events of steps that this training takes again
            return {"purge_step": self.first + 1} if self.first else {}
        if name == "mlflow":
            known = self.ids.get(name)
            return {"run_id": known} if known else {"run_name": self.run.name}
        identifier = self.ids.setdefault(name, secrets.token_hex(4))
        options = {"config": plain_parameters(self.config), "resume": "allow"}
        if name == "trackio":
            # it knows a run by its name alone
            title = f"{self.run.name} {identifier}"
            usage = {"auto_log_gpu": False, "auto_log_cpu": False}
            return options | usage | {"name": title, "embed": False}
        return options | wandb_options(self.run.name, identifier, folder)

    def _call(self, function: Callable):
        """Call a function with each tracker; one that raises an error is switched off."""
        for tracker in list(self.active):
            try:
                function(tracker)
            # the libraries raise errors of every type
            except Exception as failure:
                self.active.remove(tracker)
                _report(tracker.name, failure)


def _finish(tracker):
    """Close a tracker. Errors: its own; TimeoutError if it goes on without end."""
    # MLflow knows its run in this thread alone
    if tracker.name == "mlflow":
        tracker.finish()
        return
    failures = []

    def close():
        try:
            tracker.finish()
        except Exception as failure:
            failures.append(failure)

    # trackio prints that it waits; W&B online waits for ever for a network that is gone
    with redirect_stdout(io.StringIO()):
        thread = threading.Thread(target=close, daemon=True)
        thread.start()
        thread.join(PATIENCE)
    if thread.is_alive():
        raise TimeoutError(f"it has not closed within {PATIENCE} s")
    if failures:
        raise failures[0]


def _report(name: str, failure: Exception):
    reason = first_line(failure) or type(failure).__name__
    write_above_bar(
        f"tracker {name} is off from here: {reason}; the training goes on, and metrics.jsonl has "
        "every number"
    )


def default_variables(name: str, folder: Path) -> dict[str, str]:
    """Return the environment variables that keep a tracker on this machine and in its folder."""
    if name == "wandb":
        return {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    if name == "trackio":
        return {"TRACKIO_DIR": str(folder)}
    if name == "mlflow":
        return {
            "MLFLOW_TRACKING_URI": folder.resolve().as_uri(),
            # its database needs packages that MLflow's small distribution does not have
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # a server that is gone would hold up the training for minutes, and is given up then
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        }
    return {}


def wandb_options(name: str, identifier: str, folder: Path) -> dict:
    """Return W&B's options that belong to it alone."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        # the output and the usage of the machine are recorded already
        console="off",
        x_disable_stats=True,
    )
    return {"name": name, "id": identifier, "dir": str(folder), "settings": settings}


def _log_array(tracker, name: str, path: Path, step: int):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
    tracker.log_images({name: pixels[None]}, step=step, **options)


def _log_trackio_image(tracker, name: str, path: Path, step: int):
    # no import statement: it stands outside of the tested set, which has a newer Pillow
    trackio = import_module("trackio")
    tracker.log({name: trackio.Image(str(path))}, step=step)


def _log_artifact(tracker, name: str, path: Path, step: int):
    # the file's own name holds the step
    tracker.log_artifact(str(path), name)


PICTURE_LOGGERS = {
    "tensorboard": _log_array,
    "wandb": _log_array,
    "trackio": _log_trackio_image,
    "mlflow": _log_artifact,
}
