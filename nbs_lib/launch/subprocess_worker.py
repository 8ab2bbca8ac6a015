"""A process of a training that accelerate's own launch starts.

It calls the function of an order, which lies in the run's folder, with the order's parameters.

python -m nbs_lib.launch.subprocess_worker ORDER
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from ..config import Train
from ..run.run import Run
from .launcher import run_in_process

if __name__ == "__main__":
    order = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    config = Train(**order["config"])
    module, name = order["function"].split(":")
    code = 0
    try:
        function = getattr(importlib.import_module(module), name)
        run_in_process(function, config, Run(config.run), order["inputs"])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # as a forked process ends: to clear away all modules takes time, also on an interrupt
    os._exit(code)
