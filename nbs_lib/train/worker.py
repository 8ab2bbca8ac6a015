"""What a process does that was started afresh: the function and the parameters of the order that lies in the run's folder.

python -m nbs_lib.train.worker ORDER     # by `launch`, through accelerate's own launch
"""

import importlib
import json
import sys
from pathlib import Path

from ..config import Train
from ..run import Run
from .launch import in_process

if __name__ == "__main__":
    order = json.loads(Path(sys.argv[1]).read_text())
    config = Train(**order["config"])
    module, name = order["function"].split(":")
    in_process(getattr(importlib.import_module(module), name), config, Run(config.run), order["inputs"])
