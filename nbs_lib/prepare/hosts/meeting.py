"""The process of a host among those of the others: they meet, make sure of one another, and part.

The processes are started by the launch that trainings use. Each has the workers of its host.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.state import PartialState

from ...config import Prepare
from ...launch.errors import COLLECTIVE_TIMEOUT, LaunchError
from ...launch.multinode import HostLiveness, check_agreement
from ...run.run import Run
from .share import Hosts


@contextmanager
def meet(config: Prepare, run: Run) -> Iterator[Hosts]:
    """Yield the hosts in a launched process, and wait for all of them at the end.

    The process ends when another host is lost.
    Errors: LaunchError if the hosts have other parameters, or do not share the run's folder.
    """
    # on the CPU, because the workers take the GPUs
    state = PartialState(cpu=True, backend="gloo", timeout=COLLECTIVE_TIMEOUT)
    liveness = HostLiveness(config, run, state)
    check_agreement(config, run, {}, state)
    yield Hosts(state.process_index, state.num_processes)
    # nobody is missed from here on
    state.wait_for_everyone()
    liveness.finish()


def check_same_request(request: str, hosts: Hosts):
    """Check that the hosts have the same base, packages and code. Errors: LaunchError."""
    if hosts.share(lambda: request) != request:
        raise LaunchError(
            f"host {hosts.rank} has another base, other versions of packages or other code than "
            "host 0; give all hosts the same checkout, environment and base"
        )
