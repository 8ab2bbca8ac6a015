"""Short hashes: numbers for sets of millions of names, and hex digits for names of files.

table    values by their hashes, on disk
"""

from hashlib import blake2b
from typing import Any

from ...files import value_hash


def hash64(value: bytes) -> int:
    """Return 64 bits of a hash as a number."""
    return int.from_bytes(blake2b(value, digest_size=8).digest())


def hash128(value: Any) -> str:
    """Return 32 hex digits of the SHA-256 of a plain value's canonical JSON."""
    return value_hash(value)[:32]
