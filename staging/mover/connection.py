"""An authenticated connection to a publisher: requests out, checked replies in."""

from __future__ import annotations

import json
import math
import time
from typing import NamedTuple

from . import wire
from .digests import Hash
from .errors import StageError, from_wire
from .handshake import dial, receive, receive_into

CONNECT_SECONDS = 3
SILENCE_SECONDS = 5  # of a peer that owes something: it says WAIT every second if it lives


class Peer(NamedTuple):
    name: str
    host: str
    port: int


class Refused(Exception):
    """The peer said why it cannot serve."""

    def __init__(self, error: StageError) -> None:
        super().__init__(str(error))
        self.error = error


class Tampered(Exception):
    """A payload whose MAC is wrong."""


class Connection:
    """An authenticated connection to a publisher."""

    def __init__(self, peer: Peer, key: bytes, transfer: bytes, chosen: Hash) -> None:
        self.peer = peer
        self._key = key
        self._hash = chosen
        self.sock = dial(peer.host, peer.port, key, transfer, chosen, CONNECT_SECONDS, SILENCE_SECONDS)

    def close(self) -> None:
        self.sock.close()

    def ask(self, requests: bytes) -> None:
        self.sock.sendall(requests)

    def reply(self, buffer: memoryview) -> wire.Reply:
        """The next header; a block's payload is left to the caller, a refusal is raised."""
        got = wire.read_reply(receive(self.sock, wire.REPLY_SIZE), len(buffer))
        if got.status == wire.REFUSED:
            payload = receive(self.sock, got.length)
            if not wire.authentic(self._hash, self._key, got, self._hash.digest(payload)):
                raise Tampered("a refusal failed its MAC")
            raise Refused(_refusal(payload))
        return got

    def payload(self, got: wire.Reply, view: memoryview) -> bytes:
        """Receive the payload into `view` and return its digest; Tampered when the MAC is wrong."""
        receive_into(self.sock, view)
        digest = self._hash.digest(view)
        if not wire.authentic(self._hash, self._key, got, digest):
            raise Tampered("a payload failed its MAC")
        return digest

    def whole(self, op: int, index: int = 0, count: int = 0, patience: float = math.inf) -> bytes:
        """One request that is answered by one payload of any size; TimeoutError after `patience` seconds of WAIT."""
        until = time.monotonic() + patience
        self.ask(wire.request(op, index, count))
        got = self.reply(memoryview(b""))
        while got.status == wire.WAIT:
            if time.monotonic() > until:
                raise TimeoutError("it lives but has nothing for us")
            got = self.reply(memoryview(b""))
        if (got.op, got.block) != (op, index):
            raise wire.ProtocolError("an answer to another request")
        buffer = bytearray(got.length)
        self.payload(got, memoryview(buffer))
        return bytes(buffer)


def _refusal(payload: bytes) -> StageError:
    try:
        return from_wire(json.loads(payload))
    except (ValueError, AttributeError, RecursionError):
        raise wire.ProtocolError("a refusal that cannot be read") from None
