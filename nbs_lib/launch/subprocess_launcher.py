"""accelerate's own launch, in a separate process.

It replaces the order's file by the exit codes of the processes that failed.

python -m nbs_lib.launch.subprocess_launcher ORDER ARGUMENTS_OF_ACCELERATE_LAUNCH
"""

import json
import os
import sys
import traceback
from pathlib import Path

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ..files import write_atomic
from .rendezvous import use_local_rendezvous

if __name__ == "__main__":
    order, *arguments = sys.argv[1:]
    code = 1
    try:
        use_local_rendezvous()
        launch_command(launch_command_parser().parse_args(arguments))
        code = 0
    except ChildFailedError as failure:
        codes = {rank: child.exitcode for rank, child in failure.failures.items()}
        write_atomic(Path(order), json.dumps(codes))
    except BaseException:
        # also SystemExit, with which accelerate refuses its arguments
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # see `subprocess_worker`
    os._exit(code)
