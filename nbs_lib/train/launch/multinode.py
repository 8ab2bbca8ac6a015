"""Several hosts that train together: whether they mean the same training, and whether they are all still there.

Host 0 keeps a connection with each of the others, on which nothing is said. When a host ends or its network does, the
system closes the connection or gives it up within `SILENCE`; a collective would wait for it for hours.
"""

import os
import secrets
import socket
import threading
from contextlib import suppress

import psutil
from accelerate.utils import broadcast_object_list

from ...config import PLACE, Train
from ...config.validation import as_parameters
from ...files import write_atomic
from ...run.run import Run
from ..errors import LaunchError, processes_gone, record_failure
from .preflight import process_count

SILENCE = 30  # seconds of silence until a host is given up
PATIENCE = 5  # seconds that whoever connects is given to say who it is
TOKEN = ".hosts"
LOOPBACK = "127.0.0.1"


def meeting_point(config: Train) -> tuple[str | None, str]:
    """Return the network interface on which this host's processes meet one another and the other hosts, None where it has no
    name, and the address of host 0 on it. Nothing listens on another interface.

    gloo and NCCL would else take the one that the host's own name leads to. Errors: LaunchError where there is no way.
    """
    addresses = {
        name: [each.address for each in found if each.family == socket.AF_INET]
        for name, found in psutil.net_if_addrs().items()
    }
    own = LOOPBACK if config.num_nodes == 1 else _own_address(config, addresses)
    name = next((name for name, found in addresses.items() if own in found), None)
    return name, config.master_addr if config.node_rank else own


def _own_address(config: Train, addresses: dict[str, list[str]]) -> str:
    """The address of this host on the way to host 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                (config.master_addr, config.master_port)
            )  # sends nothing: it asks for the way
        except OSError as failure:
            raise LaunchError(
                f"master_addr: given {config.master_addr!r}, which cannot be reached: {failure}"
            ) from None
        own = probe.getsockname()[0]
    if not own.startswith("127.") or config.master_addr.startswith(("127.", "localhost")):
        return own
    # the name of this host leads to the loopback, as Debian has it: meant is the way to the other hosts
    ways = [found[0] for found in addresses.values() if found and not found[0].startswith("127.")]
    if len(ways) != 1:
        raise LaunchError(
            f"master_addr: given {config.master_addr!r}, which is {own} here; give the address by which the other hosts "
            "reach this one"
        )
    return ways[0]


def check_agreement(config: Train, run: Run, inputs: dict[str, str], accelerator) -> dict[str, str]:
    """Host 0's inputs, in every process. Errors: LaunchError where hosts do not mean the same training or the same folder.

    A file that host 0 writes now is to be seen by all of them.
    """
    if config.num_nodes == 1:
        return inputs
    main = accelerator.is_main_process
    told = [secrets.token_hex(8), as_parameters(config), inputs]
    if main:
        write_atomic(run.folder / TOKEN, told[0])
    broadcast_object_list(told)
    if accelerator.num_processes != process_count(config) * config.num_nodes:
        raise LaunchError(
            f"processes: host {config.node_rank} has {process_count(config)}, and all {config.num_nodes} hosts together "
            f"{accelerator.num_processes}; give every host the same number"
        )
    mine, others = as_parameters(config), told[1]
    differing = [name for name in mine if name not in PLACE and mine[name] != others[name]]
    if differing:
        name = differing[0]
        raise LaunchError(
            f"host {config.node_rank} was given {name} {mine[name]!r}, host 0 {others[name]!r}; give both the same"
        )
    token = run.folder / TOKEN
    if not token.is_file() or token.read_text() != told[0]:
        raise LaunchError(
            f"host {config.node_rank} does not see what host 0 writes in {run.folder}; give them all a folder that they share"
        )
    accelerator.wait_for_everyone()
    if main:
        token.unlink()
    return told[2]


class HostLiveness:
    """The connections between this host and the others, where there are several; a process ends when one breaks."""

    def __init__(self, config: Train, run: Run, accelerator):
        """Every process must call this. Errors: OSError where a host cannot be reached."""
        self.run, self.links, self.over = run, [], False
        if config.num_nodes == 1:
            return
        main, server, place = accelerator.is_main_process, None, [0, secrets.token_bytes(16)]
        if main:
            server = socket.create_server((meeting_point(config)[1], 0))
            place[0] = server.getsockname()[1]
        broadcast_object_list(place)
        port, secret = place
        if main:
            server.settimeout(2 * SILENCE)
            while len(self.links) < config.num_nodes - 1:
                link, _ = server.accept()
                link.settimeout(PATIENCE)
                with suppress(OSError):
                    said = link.recv(32, socket.MSG_WAITALL)
                    if said[:16] == secret:  # anybody may knock, and be silent then
                        self._keep(link, int.from_bytes(said[16:]))
                        continue
                link.close()
            server.close()
        elif accelerator.is_local_main_process:
            link = socket.create_connection((config.master_addr, port), 2 * SILENCE)
            link.sendall(secret + config.node_rank.to_bytes(16))
            self._keep(link, 0)

    def _keep(self, link: socket.socket, host: int):
        link.settimeout(None)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, 5),
            (socket.TCP_KEEPINTVL, 5),
            (socket.TCP_KEEPCNT, SILENCE // 5 - 1),
        ):
            link.setsockopt(socket.IPPROTO_TCP, option, value)
        self.links.append(link)
        threading.Thread(target=self._watch, args=(link, host), daemon=True).start()

    def _watch(self, link: socket.socket, host: int):
        try:
            said = link.recv(1)
        except OSError:
            said = b""
        if not said and not self.over:
            record_failure(self.run.folder, processes_gone(host))
            os._exit(1)

    def part(self):
        """The training is over; nobody is missed from here on."""
        self.over = True
        for link in self.links:
            with suppress(OSError):  # it may be gone already, having said so
                link.sendall(b".")
