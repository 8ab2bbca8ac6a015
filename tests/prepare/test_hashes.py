"""Tables by hashes: what is found in them, and the memory that they take."""

from nbs_lib.prepare.hashes import hash64
from nbs_lib.prepare.hashes.table import CACHE, HashTable

GROWTH = """
import psutil, sys
from nbs_lib.prepare.hashes import hash64
from nbs_lib.prepare.hashes.table import HashTable

table, process, used = HashTable(), psutil.Process(), []
for number in range(300_000):
    if number % 150_000 == 0:
        used.append(process.memory_info().rss)
    table.add(hash64(b"%d" % number), b"an example's id, %d" % number)
used.append(process.memory_info().rss)
assert next(table.find(hash64(b"7"))) == b"an example's id, 7"
print(used[1] - used[0], used[2] - used[1])
"""


def test_values_are_found_by_any_of_their_keys_in_the_order_of_their_addition():
    table = HashTable()
    # The ends of the range, where a signed number would overflow.
    least, most, other = 0, 2**64 - 1, hash64(b"other")
    for key, value in ((most, 5), (least, b"first"), (other, 7), (least, b"second")):
        table.add(key, value)
    assert list(table.find(least)) == [b"first", b"second"]
    assert list(table.find(other, least, most)) == [5, b"first", 7, b"second"]
    assert list(table.find(1)) == []


def test_a_table_of_many_entries_takes_no_more_memory(python):
    """A dict of 150,000 such entries takes 30 MB."""
    process = python(GROWTH)
    first, second = map(int, process.stdout.split())
    assert first < 2 * CACHE * 1024, process.stderr
    assert second < 2 << 20
