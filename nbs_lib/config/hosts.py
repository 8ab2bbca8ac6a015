"""The fields of a stage that several hosts work on together.

Preparation and training have the same ones, each with values of its own.
"""

from .fields import group
from .stage import Stage, check_range

hosts = group("Processes and hosts")

NUM_NODES = hosts(
    1,
    "Hosts that do this stage together. Each starts the same run, and all see one outputs/ folder.",
    ge=1,
    le=1024,
)
NODE_RANK = hosts(
    0,
    "Number of this host. Host 0 keeps the record.",
    # the upper limit depends on num_nodes, see `check_hosts`
    ge=0,
    allowed="a whole number from 0 to num_nodes - 1",
)
MASTER_ADDR = hosts(
    "127.0.0.1",
    "Address of host 0, as the other hosts reach it.",
    pattern=r"\S",
    allowed="an address",
)
MASTER_PORT = hosts(
    0,
    "Port of host 0 for the processes to meet, 0 for a free one. "
    "Several hosts need one of 1,024 or more.",
    ge=0,
    le=65_535,
)


def check_hosts(config: Stage):
    """Raise ParameterError unless the host's number and the port suit the number of hosts."""
    check_range(config, "node_rank", 0, config.num_nodes - 1)
    # ports below 1024 need root; one host finds a free port by itself
    if config.num_nodes > 1:
        check_range(config, "master_port", 1024, 65_535)
