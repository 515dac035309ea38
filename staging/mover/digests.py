"""The two hash functions a transfer may use: BLAKE3 where it is installed, else BLAKE2b.

Both give 32-byte digests and keyed MACs. They release the GIL on large inputs.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Union

Bytes = Union[bytes, bytearray, memoryview]

DIGEST_SIZE = 32
KEY_SIZE = 32


class Hash(NamedTuple):
    """One hash function: `digest(data)` gives 32 bytes, `mac(key, data, size)` the first `size` of the keyed digest."""

    name: str
    digest: Callable[[Bytes], bytes]
    mac: Callable[[bytes, Bytes, int], bytes]


def _blake2b_digest(data: Bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


def _blake2b_mac(key: bytes, data: Bytes, size: int) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=DIGEST_SIZE).digest()[:size]


HASHES = {"blake2b": Hash("blake2b", _blake2b_digest, _blake2b_mac)}

try:
    import blake3 as _blake3
except ImportError:
    pass  # BLAKE2b is always there; the source names what is used
else:

    def _blake3_digest(data: Bytes) -> bytes:
        result: Any = _blake3.blake3(data).digest()
        return bytes(result)

    def _blake3_mac(key: bytes, data: Bytes, size: int) -> bytes:
        result: Any = _blake3.blake3(data, key=key).digest(length=size)
        return bytes(result)

    HASHES["blake3"] = Hash("blake3", _blake3_digest, _blake3_mac)


def available() -> list[str]:
    """Names of the usable functions, best first."""
    return sorted(HASHES, reverse=True)


def content_digest(chosen: Hash, block_digests: Iterable[bytes]) -> bytes:
    """The digest of a whole replica: H over the digests of its blocks, in order."""
    return chosen.digest(b"".join(block_digests))


def same(left: bytes, right: bytes) -> bool:
    """Compare two MACs in constant time."""
    return hmac.compare_digest(left, right)
