"""The data protocol between movers as pure functions: bytes in, values out. See docs/protocol.md.

Nothing here touches a socket. Whatever bytes come in, the only error that goes out is ProtocolError.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from .digests import Bytes, Hash, same

MAGIC = b"LSH\x01"
ROLE_FETCH = 0

HELLO = struct.Struct("!4sB3x16s32s")
CHALLENGE_SIZE = 64
ANSWER_SIZE = 32
REQUEST = struct.Struct("!B3xIQ")
REPLY_HEAD = struct.Struct("!BBxxIQ")
REPLY_SIZE = REPLY_HEAD.size + 16

BLOCK, MANIFEST, DIGESTS = 1, 2, 3
OK, WAIT, REFUSED = 0, 1, 2

MAX_BLOCK = 32 << 20
MAX_MANIFEST = 1 << 30
MAX_DIGESTS = 1 << 16  # digests in one answer
MAX_REFUSAL = 1 << 16

NONCE_SIZE = 32
TAG_SIZE = 16


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow; the connection is to be closed."""


class Request(NamedTuple):
    op: int
    first: int
    many: int


class Reply(NamedTuple):
    op: int
    status: int
    length: int
    block: int
    tag: bytes
    head: bytes


def hello(transfer: bytes, nonce: bytes) -> bytes:
    """The dialer's first 56 bytes."""
    return HELLO.pack(MAGIC, ROLE_FETCH, transfer, nonce)


def read_hello(data: bytes, transfer: bytes) -> None:
    """Check a HELLO against the transfer that is served here."""
    magic, role, named, _ = _unpack(HELLO, data)
    if magic != MAGIC or role != ROLE_FETCH or not same(named, transfer):
        raise ProtocolError("not a fetcher of this transfer")


def proof(chosen: Hash, key: bytes, side: bytes, hello_bytes: bytes, listener_nonce: bytes) -> bytes:
    """What `side` (b"listener" or b"dialer") sends to show that it holds the key."""
    return chosen.mac(key, side + hello_bytes + listener_nonce, 32)


def challenge(chosen: Hash, key: bytes, hello_bytes: bytes, nonce: bytes) -> bytes:
    """The listener's 64 bytes."""
    return nonce + proof(chosen, key, b"listener", hello_bytes, nonce)


def answer(chosen: Hash, key: bytes, hello_bytes: bytes, challenge_bytes: bytes) -> bytes:
    """The dialer's last 32 bytes, once the listener's proof is right."""
    nonce = challenge_bytes[:NONCE_SIZE]
    if not same(challenge_bytes, challenge(chosen, key, hello_bytes, nonce)):
        raise ProtocolError("the listener does not hold the key")
    return proof(chosen, key, b"dialer", hello_bytes, nonce)


def request(op: int, index: int = 0, count: int = 0) -> bytes:
    return REQUEST.pack(op, count, index)


def read_request(data: Bytes) -> Request:
    """Decode 16 bytes; whether there are such blocks is for `check_range`, once the manifest is known."""
    op, count, index = _unpack(REQUEST, data)
    if op == MANIFEST:
        return Request(op, 0, 0)
    if op == BLOCK:
        return Request(op, index, 0)
    if op == DIGESTS and 0 < count <= MAX_DIGESTS:
        return Request(op, index, count)
    raise ProtocolError("request outside the protocol")


def check_range(asked: Request, blocks: int) -> None:
    """ProtocolError where a request is for blocks that a replica of `blocks` blocks does not have."""
    if asked.op != MANIFEST and asked.first + max(1, asked.many) > blocks:
        raise ProtocolError("request outside the replica")


def reply(chosen: Hash, key: bytes, op: int, status: int, index: int, length: int, digest: bytes) -> bytes:
    """The 32-byte header for a payload of `length` bytes whose digest is `digest`."""
    head = REPLY_HEAD.pack(op, status, length, index)
    return head + chosen.mac(key, head + digest, TAG_SIZE)


def read_reply(data: Bytes, block_size: int) -> Reply:
    """Decode a reply header and bound its length, before any memory is set aside for the payload."""
    head, tag = bytes(data[: REPLY_HEAD.size]), bytes(data[REPLY_HEAD.size :])
    op, status, length, index = _unpack(REPLY_HEAD, head)
    limits = {
        (BLOCK, OK): block_size,
        (MANIFEST, OK): MAX_MANIFEST,
        (DIGESTS, OK): MAX_DIGESTS * 32,
        (BLOCK, WAIT): 0,
    }
    if status == REFUSED:
        limit = MAX_REFUSAL
    else:
        limit = limits.get((op, status), -1)
    if length > limit or len(tag) != TAG_SIZE:
        raise ProtocolError("reply outside the protocol")
    return Reply(op, status, length, index, tag, head)


def authentic(chosen: Hash, key: bytes, got: Reply, digest: bytes) -> bool:
    """Whether the reply's MAC fits its header and the digest of the payload that came with it."""
    return same(got.tag, chosen.mac(key, got.head + digest, TAG_SIZE))


def _unpack(form: struct.Struct, data: Bytes) -> tuple[Any, ...]:
    try:
        return form.unpack(data)
    except struct.error:
        raise ProtocolError("a message of the wrong size") from None
