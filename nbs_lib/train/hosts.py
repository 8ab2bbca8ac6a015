"""Several hosts that train together: whether they mean the same training, and whether they are all still there.

Host 0 keeps a connection with each of the others, on which nothing is said. When a host ends or its network does, the
system closes the connection or gives it up within `SILENCE`; a collective would wait for it for hours.
"""

import os
import secrets
import socket
import threading

import psutil
from accelerate.utils import broadcast_object_list

from ..config import PLACE, Train
from ..files import write_atomic
from ..parameters import as_parameters
from ..run import Run
from .failure import LaunchError, gone, note

SILENCE = 30  # seconds of silence until a host is given up
TOKEN = ".hosts"


def interface(config: Train) -> str | None:
    """The network interface of this host on which it meets the others; None of a training on one host.

    gloo and NCCL would else take the one that the host's own name leads to, which often is the loopback.
    """
    if config.num_nodes == 1:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((config.master_addr, config.master_port))  # sends nothing: it asks for the way
        except OSError as failure:
            raise LaunchError(f"master_addr: given {config.master_addr!r}, which cannot be reached: {failure}") from None
        own = probe.getsockname()[0]
    names = {name for name, each in psutil.net_if_addrs().items() if own in (address.address for address in each)}
    return next(iter(names), None)


def agree(config: Train, run: Run, inputs: dict[str, str], accelerator) -> dict[str, str]:
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


class Hosts:
    """The connections between this host and the others, where there are several; a process ends when one breaks."""

    def __init__(self, config: Train, run: Run, accelerator):
        """Every process must call this. Errors: OSError where a host cannot be reached."""
        self.run, self.links = run, []
        if config.num_nodes == 1:
            return
        main, server, place = accelerator.is_main_process, None, [0, secrets.token_bytes(16)]
        if main:
            server = socket.create_server((config.master_addr, 0))
            place[0] = server.getsockname()[1]
        broadcast_object_list(place)
        port, secret = place
        if main:
            server.settimeout(2 * SILENCE)
            while len(self.links) < config.num_nodes - 1:
                link, _ = server.accept()
                said = link.recv(32, socket.MSG_WAITALL)
                if said[:16] == secret:  # anybody may knock
                    self._keep(link, int.from_bytes(said[16:]))
            server.close()
        elif accelerator.is_local_main_process:
            link = socket.create_connection((config.master_addr, port), 2 * SILENCE)
            link.sendall(secret + config.node_rank.to_bytes(16))
            self._keep(link, 0)

    def _keep(self, link: socket.socket, host: int):
        link.settimeout(None)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, SILENCE // 5 - 1)):
            link.setsockopt(socket.IPPROTO_TCP, option, value)
        self.links.append(link)
        threading.Thread(target=self._watch, args=(link, host), daemon=True).start()

    def _watch(self, link: socket.socket, host: int):
        try:
            said = link.recv(1)
        except OSError:
            said = b""
        if not said:
            note(self.run.folder, gone(host))
            os._exit(1)

    def part(self):
        """The training is over; nobody is missed from here on."""
        for link in self.links:
            link.sendall(b".")
