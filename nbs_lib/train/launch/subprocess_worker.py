"""What a process does that was started afresh: the function and the parameters of the order that lies in the run's folder.

python -m nbs_lib.train.launch.subprocess_worker ORDER     # by `launch`, through accelerate's own launch
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from ...config import Train
from ...run.run import Run
from .launcher import in_process

if __name__ == "__main__":
    order = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    config = Train(**order["config"])
    module, name = order["function"].split(":")
    code = 0
    try:
        in_process(
            getattr(importlib.import_module(module), name), config, Run(config.run), order["inputs"]
        )
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        code
    )  # as a forked process ends: to clear away all modules first would take its time, also when interrupted
