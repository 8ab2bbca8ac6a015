"""The rendezvous of a training's processes: torch elastic's static one, on one address only.

torch's store asks nobody who connects for a secret, and it listens on every interface unless it is
given a socket.
"""

import socket

from torch.distributed import DistNetworkError, TCPStore
from torch.distributed.elastic.rendezvous import RendezvousInfo, static_tcp_rendezvous


class LocalRendezvous(static_tcp_rendezvous.StaticTCPRendezvous):
    """The static rendezvous, whose store listens on the address of host 0 alone."""

    def next_rendezvous(self) -> RendezvousInfo:
        """Create the store on host 0, then meet as the static rendezvous does."""
        if self.rank == 0 and not self._store:
            address = (self.master_addr, self.master_port)
            try:
                listener = socket.create_server(address)
            except OSError as failure:
                raise DistNetworkError(str(failure)) from None
            # as the static rendezvous makes it, but on our socket
            self._store = TCPStore(
                *address,
                self.world_size,
                is_master=True,
                timeout=self.timeout,
                multi_tenant=True,
                master_listen_fd=listener.detach(),
            )
        return super().next_rendezvous()


def use_local_rendezvous():
    """Let torch elastic use `LocalRendezvous` in this process."""
    # its registry takes no second rendezvous of the name "static"
    static_tcp_rendezvous.StaticTCPRendezvous = LocalRendezvous
