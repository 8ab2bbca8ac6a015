"""accelerate's own launch in a process of its own, which leaves the exit codes of those that failed in the order's place.

python -m nbs_lib.train.launch.subprocess_launcher ORDER ARGUMENTS_OF_ACCELERATE_LAUNCH     # by `launch`
"""

import json
import os
import sys
import traceback
from pathlib import Path

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ...files import write_atomic
from .rendezvous import on_one_address

if __name__ == "__main__":
    order, *arguments = sys.argv[1:]
    code = 1
    try:
        on_one_address()
        launch_command(launch_command_parser().parse_args(arguments))
        code = 0
    except ChildFailedError as failure:
        codes = {rank: told.exitcode for rank, told in failure.failures.items()}
        write_atomic(Path(order), json.dumps(codes))
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # see `worker`
