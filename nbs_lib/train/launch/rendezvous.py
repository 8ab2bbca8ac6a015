"""Where the processes of a training meet: torch elastic's static rendezvous, on one address instead of all.

torch's store asks nobody who connects for a secret, and it listens on every interface unless it is given a socket.
"""

import socket

from torch.distributed import DistNetworkError, TCPStore
from torch.distributed.elastic.rendezvous import RendezvousInfo, static_tcp_rendezvous

Static = static_tcp_rendezvous.StaticTCPRendezvous


class OnOneAddress(Static):
    """The static rendezvous, whose store listens on the address of host 0 alone."""

    def next_rendezvous(self) -> RendezvousInfo:
        if self.rank == 0 and not self._store:
            try:
                listener = socket.create_server((self.master_addr, self.master_port))
            except OSError as failure:
                raise DistNetworkError(str(failure)) from None
            self._store = TCPStore(
                self.master_addr, self.master_port, self.world_size, True, self.timeout,
                multi_tenant=True, master_listen_fd=listener.detach(),
            )  # fmt: skip
        return super().next_rendezvous()


def on_one_address():
    """Have torch elastic use `OnOneAddress` in this process; its registry takes no other one of that name."""
    static_tcp_rendezvous.StaticTCPRendezvous = OnOneAddress
