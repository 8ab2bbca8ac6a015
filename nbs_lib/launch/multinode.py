"""Several hosts: check that all of them mean the same stage, and end when one disappears.

Host 0 keeps a connection with each other host, on which nothing is sent. When a host or its network
fails, the system closes the connection or gives it up within `LOST_AFTER`; a collective would wait
for the host for hours.
"""

import os
import secrets
import socket
import threading
from contextlib import suppress

import psutil
from accelerate.utils import broadcast_object_list

from ..config import PLACE, Prepare, Train
from ..config.validation import as_parameters
from ..files import write_atomic
from ..run.run import Run
from ..run.stage_recording import stage_name
from .errors import LaunchError, missing_host_message, record_failure
from .start import Inputs

LOST_AFTER = 30  # seconds without an answer
KEEPALIVE = 5  # seconds between the system's probes
KEEPALIVE_PROBES = LOST_AFTER // KEEPALIVE - 1  # without an answer, until it gives up
HANDSHAKE_TIMEOUT = 5  # seconds for whoever connects to send the secret
SECRET_SIZE = 16  # bytes
RANK_SIZE = 16  # bytes
TOKEN_FILE = ".hosts"
LOOPBACK = "127.0.0.1"


def network_interface(config: Train | Prepare) -> tuple[str | None, str]:
    """Return the network interface of the processes, and the address of host 0 on it.

    Nothing listens on another interface; gloo and NCCL would take that of the host's own name. The
    interface is None if it has no name.
    Errors: LaunchError if host 0 cannot be reached.
    """
    addresses = {}
    for name, entries in psutil.net_if_addrs().items():
        addresses[name] = [entry.address for entry in entries if entry.family == socket.AF_INET]
    local = LOOPBACK if config.num_nodes == 1 else _local_address(config, addresses)
    name = next((name for name, bound in addresses.items() if local in bound), None)
    return name, config.master_addr if config.node_rank else local


def _local_address(config: Train | Prepare, addresses: dict[str, list[str]]) -> str:
    """Return the address from which this host reaches host 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # sends nothing: it only asks the system for the route
            probe.connect((config.master_addr, config.master_port))
        except OSError as failure:
            raise LaunchError(
                f"master_addr: given {config.master_addr!r}, which cannot be reached: {failure}"
            ) from None
        local = probe.getsockname()[0]
    if not local.startswith("127.") or config.master_addr.startswith(("127.", "localhost")):
        return local
    # this host's name leads to the loopback, as Debian has it: take the way to the other hosts
    first = [bound[0] for bound in addresses.values() if bound]
    candidates = [address for address in first if not address.startswith("127.")]
    if len(candidates) != 1:
        raise LaunchError(
            f"master_addr: given {config.master_addr!r}, which is {local} here; give the address "
            "by which the other hosts reach this one"
        )
    return candidates[0]


def check_agreement(config: Train | Prepare, run: Run, inputs: Inputs, accelerator) -> Inputs:
    """Return host 0's inputs, in every process.

    accelerator: an Accelerator, or the PartialState of processes that train nothing.
    Errors: LaunchError if the hosts have other parameters, or do not share the run's folder.
    """
    if config.num_nodes == 1:
        return inputs
    main = accelerator.is_main_process
    parameters = as_parameters(config)
    token_path = run.folder / TOKEN_FILE
    message = [secrets.token_hex(8), parameters, inputs]
    # all hosts must see a file that host 0 writes now
    if main:
        write_atomic(token_path, message[0])
    broadcast_object_list(message)
    token, parameters_of_0, inputs_of_0 = message
    local_count = int(os.environ["LOCAL_WORLD_SIZE"])
    if accelerator.num_processes != local_count * config.num_nodes:
        raise LaunchError(
            f"num_processes: host {config.node_rank} has {local_count}, and all {config.num_nodes} "
            f"hosts together {accelerator.num_processes}; give every host the same number"
        )
    _check_same_parameters(config.node_rank, parameters, parameters_of_0)
    if not token_path.is_file() or token_path.read_text() != token:
        raise LaunchError(
            f"host {config.node_rank} does not see what host 0 writes in {run.folder}; give them "
            "all a folder that they share"
        )
    accelerator.wait_for_everyone()
    if main:
        token_path.unlink()
    return inputs_of_0


def _check_same_parameters(host: int, parameters: dict, parameters_of_0: dict):
    for name, value in parameters.items():
        # an address or a rank may differ from host to host
        if name not in PLACE and value != parameters_of_0[name]:
            raise LaunchError(
                f"host {host} was given {name} {value!r}, host 0 {parameters_of_0[name]!r}; "
                "give both the same"
            )


class HostLiveness:
    """The connections between this host and the others; a process ends when one breaks."""

    def __init__(self, config: Train | Prepare, run: Run, accelerator):
        """Connect the hosts, if there are several. Every process must call this.

        accelerator: see `check_agreement`.
        Errors: OSError if a host cannot be reached.
        """
        self.run = run
        self.stage = stage_name(config)
        self.connections: list[socket.socket] = []
        self.finished = False
        if config.num_nodes == 1:
            return
        if accelerator.is_main_process:
            # so that nobody else who connects is taken for a host
            secret = secrets.token_bytes(SECRET_SIZE)
            with socket.create_server((network_interface(config)[1], 0)) as server:
                broadcast_object_list([server.getsockname()[1], secret])
                self._accept(server, secret, config.num_nodes - 1)
            return
        message = [None, None]
        broadcast_object_list(message)
        if accelerator.is_local_main_process:
            port, secret = message
            connection = socket.create_connection((config.master_addr, port), 2 * LOST_AFTER)
            connection.sendall(secret + config.node_rank.to_bytes(RANK_SIZE))
            self._keep(connection, 0)

    def _accept(self, server: socket.socket, secret: bytes, n_hosts: int):
        """Wait until so many hosts have connected."""
        server.settimeout(2 * LOST_AFTER)
        while len(self.connections) < n_hosts:
            connection, _ = server.accept()
            connection.settimeout(HANDSHAKE_TIMEOUT)
            greeting = b""
            # anybody may connect, and send nothing
            with suppress(OSError):
                greeting = connection.recv(SECRET_SIZE + RANK_SIZE, socket.MSG_WAITALL)
            if greeting[:SECRET_SIZE] == secret:
                self._keep(connection, int.from_bytes(greeting[SECRET_SIZE:]))
            else:
                connection.close()

    def _keep(self, connection: socket.socket, host: int):
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        self.connections.append(connection)
        threading.Thread(target=self._watch, args=(connection, host), daemon=True).start()

    def _watch(self, connection: socket.socket, host: int):
        try:
            farewell = connection.recv(1)
        except OSError:
            farewell = b""
        if not farewell and not self.finished:
            record_failure(self.run.folder, missing_host_message(host, self.stage))
            os._exit(1)

    def finish(self):
        """Tell the other hosts that the work is over: nobody is missed from here on."""
        self.finished = True
        for connection in self.connections:
            # the other host may be gone already, after it has said so
            with suppress(OSError):
                connection.sendall(b".")
