"""The hash functions against published values, and the choice between them."""

from __future__ import annotations

import hashlib
import importlib.util
import sys

import pytest

from staging.mover import digests
from staging.mover.digests import HASHES, Hash, available, content_digest, same

KEY = b"whats the Elvish word for friend"  # the key of BLAKE3's own test vectors

hashes = pytest.mark.parametrize("chosen", HASHES.values(), ids=lambda chosen: chosen.name)


def test_blake3_vectors() -> None:
    chosen = HASHES["blake3"]
    assert chosen.digest(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert chosen.mac(KEY, b"", 32).hex() == "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"


def test_blake2b_is_hashlibs() -> None:
    chosen = HASHES["blake2b"]
    assert chosen.digest(b"abc") == hashlib.blake2b(b"abc", digest_size=32).digest()
    assert chosen.mac(KEY, b"abc", 16) == hashlib.blake2b(b"abc", key=KEY, digest_size=32).digest()[:16]


@hashes
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer(chosen: Hash, kind: type) -> None:
    data = bytes(range(256)) * 700
    assert chosen.digest(kind(data)) == chosen.digest(data)
    assert chosen.mac(KEY, kind(data), 16) == chosen.mac(KEY, data, 32)[:16]
    assert len(chosen.digest(data)) == digests.DIGEST_SIZE


@hashes
def test_content_digest_is_over_the_digests_in_order(chosen: Hash) -> None:
    one, two = chosen.digest(b"1"), chosen.digest(b"2")
    assert content_digest(chosen, [one, two]) == chosen.digest(one + two)
    assert content_digest(chosen, [one, two]) != content_digest(chosen, [two, one])
    assert content_digest(chosen, []) == chosen.digest(b"")


def test_blake3_comes_first() -> None:
    assert available() == ["blake3", "blake2b"]


def test_without_blake3_there_is_blake2b(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "blake3", None)  # its import now fails
    spec = importlib.util.spec_from_file_location("digests_alone", digests.__file__)
    assert spec is not None
    assert spec.loader is not None
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert alone.available() == ["blake2b"]


def test_same() -> None:
    assert same(b"abc", b"abc")
    assert not same(b"abc", b"abd")
    assert not same(b"abc", b"ab")
