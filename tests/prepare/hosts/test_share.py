"""The share of a host, and the refusal of hosts that are not the same."""

import pytest

from nbs_lib.launch.errors import LaunchError
from nbs_lib.prepare.encode.chunks import agreed_chunks
from nbs_lib.prepare.examples import Example, SourceError
from nbs_lib.prepare.hosts.meeting import check_same_request
from nbs_lib.prepare.hosts.share import Hosts


class Host(Hosts):
    """A host that hears what host 0 said before, or is host 0 and notes it."""

    SAID = []

    def share(self, function, number=0):
        if self.rank == 0:
            self.SAID.append(function())
        return self.SAID.pop(0) if self.rank else self.SAID[-1]


@pytest.fixture
def hosts() -> list[Host]:
    Host.SAID.clear()
    return [Host(0, 2), Host(1, 2)]


def items(*captions: str) -> list[Example]:
    return [Example(str(number), caption) for number, caption in enumerate(captions)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_number_is_one_host_s_and_its_workers_take_turns(count):
    hosts = [Hosts(rank, count) for rank in range(count)]
    # with the prior's chunks, which begin far from those of the source
    for first in (0, 1 << 40):
        owned = [[n for n in range(first, first + 210) if host.owns(n)] for host in hosts]
        assert sorted(sum(owned, [])) == list(range(first, first + 210))
        for host, numbers in zip(hosts, owned, strict=True):
            queues = {host.queue(number) % 2 for number in numbers}
            assert queues == {0, 1}, "both of two workers have something to do"


@pytest.mark.parametrize(
    "chunks", [[items("a", "b")], [items("a", "c"), items("d")], [items("a", "b"), items("other")]]
)
def test_a_host_that_reads_other_examples_is_refused(hosts, chunks):
    first = [items("a", "b"), items("d")]
    assert list(agreed_chunks(iter(first), "x", hosts[0])) == first
    with pytest.raises(SourceError, match="'x': host 1 reads other examples than host 0; give all"):
        list(agreed_chunks(iter(chunks), "x", hosts[1]))


def test_hosts_that_read_the_same_agree(hosts):
    for host in hosts:
        chunks = [items("a", "b"), items("d")]
        assert list(agreed_chunks(iter(chunks), "x", host)) == chunks


def test_a_host_with_another_base_is_refused(hosts):
    check_same_request("request", hosts[0])
    with pytest.raises(LaunchError, match="host 1 has another base, other versions"):
        check_same_request("other request", hosts[1])
