"""accelerate's own launch in a process of its own, which leaves the exit codes of those that failed in the order's place.

python -m nbs_lib.train.starter ORDER ARGUMENTS_OF_ACCELERATE_LAUNCH     # by `launch`
"""

import json
import sys
from pathlib import Path

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ..files import write_atomic

if __name__ == "__main__":
    order, *arguments = sys.argv[1:]
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as failure:
        codes = {rank: told.exitcode for rank, told in failure.failures.items()}
        write_atomic(Path(order), json.dumps(codes))
        sys.exit(1)
