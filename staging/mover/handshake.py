"""Blocking sockets between the members of a transfer: exact reads, and the mutual proof of the key."""

from __future__ import annotations

import os
import socket
import struct

from . import wire
from .digests import Hash, same


def set_timeouts(sock: socket.socket, receive: float, send: float) -> None:
    """Kernel timeouts (0: none) on a blocking socket: recv_into with MSG_WAITALL and sendfile both heed them."""
    for option, seconds in ((socket.SO_RCVTIMEO, receive), (socket.SO_SNDTIMEO, send)):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes; ConnectionError at the end of the stream, OSError on a timeout."""
    buffer = bytearray(size)
    receive_into(sock, memoryview(buffer))
    return bytes(buffer)


def receive_into(sock: socket.socket, view: memoryview) -> None:
    got = 0
    while got < len(view):
        count = sock.recv_into(view[got:], 0, socket.MSG_WAITALL)
        if not count:
            raise ConnectionError("the peer closed the connection")
        got += count


def dial(
    host: str, port: int, key: bytes, transfer: bytes, chosen: Hash, connect: float, silence: float
) -> socket.socket:
    """Connect and prove the key both ways; ProtocolError when the listener does not hold it. Times in seconds."""
    sock = socket.create_connection((host, port), connect)
    try:
        sock.settimeout(None)
        set_timeouts(sock, silence, silence)
        hello = wire.hello(transfer, os.urandom(wire.NONCE_SIZE))
        sock.sendall(hello)
        challenge = receive(sock, wire.CHALLENGE_SIZE)
        sock.sendall(wire.answer(chosen, key, hello, challenge))
    except BaseException:
        sock.close()
        raise
    return sock


def admit(sock: socket.socket, key: bytes, transfer: bytes, chosen: Hash) -> None:
    """The listener's side of `dial`; ProtocolError for a stranger."""
    hello = receive(sock, wire.HELLO.size)
    wire.read_hello(hello, transfer)
    nonce = os.urandom(wire.NONCE_SIZE)
    sock.sendall(wire.challenge(chosen, key, hello, nonce))
    if not same(receive(sock, wire.ANSWER_SIZE), wire.proof(chosen, key, b"dialer", hello, nonce)):
        raise wire.ProtocolError("the peer does not hold the key")
