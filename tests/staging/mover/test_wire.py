"""The data protocol as bytes: its layout, its limits, and what a changed bit does."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.mover import wire
from staging.mover.digests import HASHES, Hash

HASH = HASHES["blake2b"]
KEY = bytes(range(32))
TRANSFER = bytes(range(16))
NONCE = b"n" * wire.NONCE_SIZE

u8, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 32, 64))
lengths = st.integers(0, 200)


def flip(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed."""
    bit %= len(data) * 8
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# the layouts of docs/protocol.md ------------------------------------------------------------------------


def test_hello_layout() -> None:
    assert wire.hello(TRANSFER, NONCE) == b"LSH\x01" + b"\0" + b"\0\0\0" + TRANSFER + NONCE
    assert len(wire.hello(TRANSFER, NONCE)) == 56


def test_challenge_and_answer_layout() -> None:
    hello = wire.hello(TRANSFER, b"d" * 32)
    challenge = wire.challenge(HASH, KEY, hello, NONCE)
    assert challenge == NONCE + HASH.mac(KEY, b"listener" + hello + NONCE, 32)
    assert wire.answer(HASH, KEY, hello, challenge) == HASH.mac(KEY, b"dialer" + hello + NONCE, 32)
    assert (len(challenge), wire.ANSWER_SIZE) == (wire.CHALLENGE_SIZE, 32)


def test_request_layout() -> None:
    assert wire.request(wire.DIGESTS, 7, 3) == b"\3\0\0\0" + b"\0\0\0\3" + b"\0\0\0\0\0\0\0\7"


def test_reply_layout() -> None:
    digest = HASH.digest(b"payload")
    head = b"\1\0\0\0" + b"\0\0\0\7" + b"\0\0\0\0\0\0\0\5"
    assert wire.reply(HASH, KEY, wire.BLOCK, wire.OK, 5, 7, digest) == head + HASH.mac(KEY, head + digest, 16)
    assert wire.REPLY_SIZE == 32


# the proof of the key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", HASHES.values(), ids=lambda chosen: chosen.name)
def test_both_sides_prove_the_key(chosen: Hash) -> None:
    hello = wire.hello(TRANSFER, os.urandom(32))
    wire.read_hello(hello, TRANSFER)
    nonce = os.urandom(32)
    answer = wire.answer(chosen, KEY, hello, wire.challenge(chosen, KEY, hello, nonce))
    assert answer == wire.proof(chosen, KEY, b"dialer", hello, nonce)


@given(st.integers(0, 56 * 8 - 1))
def test_a_changed_bit_of_hello_is_refused_or_spoils_the_proof(bit: int) -> None:
    hello = wire.hello(TRANSFER, b"d" * 32)
    met = flip(hello, bit)  # what the listener gets
    try:
        wire.read_hello(met, TRANSFER)
    except wire.ProtocolError:
        return
    with pytest.raises(wire.ProtocolError):
        wire.answer(HASH, KEY, hello, wire.challenge(HASH, KEY, met, NONCE))


@given(st.integers(0, 64 * 8 - 1))
def test_a_changed_bit_of_the_challenge_is_found(bit: int) -> None:
    hello = wire.hello(TRANSFER, b"d" * 32)
    with pytest.raises(wire.ProtocolError, match="does not hold the key"):
        wire.answer(HASH, KEY, hello, flip(wire.challenge(HASH, KEY, hello, NONCE), bit))


@given(st.integers(0, 32 * 8 - 1))
def test_another_key_proves_nothing(bit: int) -> None:
    hello = wire.hello(TRANSFER, b"d" * 32)
    with pytest.raises(wire.ProtocolError):
        wire.answer(HASH, KEY, hello, wire.challenge(HASH, flip(KEY, bit), hello, NONCE))


def test_a_proof_cannot_be_reflected() -> None:
    hello = wire.hello(TRANSFER, NONCE)
    assert wire.proof(HASH, KEY, b"listener", hello, NONCE) != wire.proof(HASH, KEY, b"dialer", hello, NONCE)


@pytest.mark.parametrize(
    "hello",
    [
        b"LSH\x02" + wire.hello(TRANSFER, NONCE)[4:],
        wire.HELLO.pack(wire.MAGIC, 1, TRANSFER, NONCE),
        wire.hello(b"x" * 16, NONCE),
        wire.hello(TRANSFER, NONCE)[:-1],
    ],
    ids=["version", "role", "transfer", "short"],
)
def test_hello_that_is_not_ours(hello: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.read_hello(hello, TRANSFER)


# requests -----------------------------------------------------------------------------------------------


@given(u64)
def test_block_request_round_trip(index: int) -> None:
    assert wire.read_request(wire.request(wire.BLOCK, index)) == wire.Request(wire.BLOCK, index, 0)


@given(u64, st.integers(1, wire.MAX_DIGESTS))
def test_digests_request_round_trip(index: int, count: int) -> None:
    assert wire.read_request(wire.request(wire.DIGESTS, index, count)) == wire.Request(wire.DIGESTS, index, count)


def test_manifest_request_round_trip() -> None:
    assert wire.read_request(wire.request(wire.MANIFEST)) == wire.Request(wire.MANIFEST, 0, 0)


@given(st.binary(min_size=16, max_size=16) | st.binary(max_size=40), st.integers(0, 1 << 40))
def test_any_bytes_are_a_request_in_range_or_a_protocol_error(data: bytes, blocks: int) -> None:
    try:
        asked = wire.read_request(data)
        wire.check_range(asked, blocks)
    except wire.ProtocolError:
        return
    assert asked.op == wire.MANIFEST or asked.first + max(1, asked.many) <= blocks
    assert asked.many <= wire.MAX_DIGESTS


@pytest.mark.parametrize("count", [0, wire.MAX_DIGESTS + 1])
def test_number_of_digests_is_bounded(count: int) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.read_request(wire.request(wire.DIGESTS, 0, count))


@pytest.mark.parametrize(
    ("asked", "blocks", "fits"),
    [
        (wire.Request(wire.BLOCK, 4, 0), 5, True),
        (wire.Request(wire.BLOCK, 5, 0), 5, False),
        (wire.Request(wire.DIGESTS, 2, 3), 5, True),
        (wire.Request(wire.DIGESTS, 3, 3), 5, False),
        (wire.Request(wire.MANIFEST, 0, 0), 0, True),
    ],
)
def test_range_of_a_request(asked: wire.Request, blocks: int, fits: bool) -> None:
    if fits:
        wire.check_range(asked, blocks)
    else:
        with pytest.raises(wire.ProtocolError):
            wire.check_range(asked, blocks)


# replies ------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), u64, st.sampled_from(sorted(HASHES)))
def test_block_reply_round_trip(payload: bytes, index: int, name: str) -> None:
    chosen = HASHES[name]
    data = wire.reply(chosen, KEY, wire.BLOCK, wire.OK, index, len(payload), chosen.digest(payload))
    got = wire.read_reply(data, 200)
    assert (got.op, got.status, got.length, got.block) == (wire.BLOCK, wire.OK, len(payload), index)
    assert wire.authentic(chosen, KEY, got, chosen.digest(payload))


@given(st.binary(min_size=1, max_size=100), st.data())
def test_one_changed_bit_of_header_payload_or_key_is_found(payload: bytes, data: st.DataObject) -> None:
    reply = wire.reply(HASH, KEY, wire.BLOCK, wire.OK, 3, len(payload), HASH.digest(payload)) + payload
    bit = data.draw(st.integers(0, len(reply) * 8 - 1))
    met = flip(reply, bit)
    try:
        got = wire.read_reply(met[: wire.REPLY_SIZE], 1 << 20)
    except wire.ProtocolError:
        return
    assert not wire.authentic(HASH, KEY, got, HASH.digest(met[wire.REPLY_SIZE :]))
    right = wire.read_reply(reply[: wire.REPLY_SIZE], 1 << 20)
    assert not wire.authentic(HASH, flip(KEY, bit), right, HASH.digest(payload))


@given(st.binary(min_size=32, max_size=32) | st.binary(max_size=80), st.integers(0, wire.MAX_BLOCK))
def test_any_bytes_are_a_bounded_reply_or_a_protocol_error(data: bytes, block: int) -> None:
    try:
        got = wire.read_reply(data, block)
    except wire.ProtocolError:
        return
    assert got.length <= max(block, wire.MAX_MANIFEST)


@given(u8, u8, u32, u64, st.integers(0, wire.MAX_BLOCK))
def test_length_of_a_reply_is_bounded_by_what_it_answers(
    op: int, status: int, length: int, index: int, block: int
) -> None:
    limit = {
        (wire.BLOCK, wire.OK): block,
        (wire.BLOCK, wire.WAIT): 0,
        (wire.MANIFEST, wire.OK): 1 << 30,
        (wire.DIGESTS, wire.OK): 65536 * 32,
    }.get((op, status), -1)
    if status == wire.REFUSED:
        limit = 65536
    data = wire.REPLY_HEAD.pack(op, status, length, index) + bytes(16)
    if length <= limit:
        assert wire.read_reply(data, block).length == length
    else:
        with pytest.raises(wire.ProtocolError):
            wire.read_reply(data, block)
