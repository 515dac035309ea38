"""Blocking sockets between the members of a transfer: exact reads, and the mutual proof of the key."""

from __future__ import annotations

import os
import socket
import struct
import time

from . import wire
from .digests import Hash, same


def set_timeouts(sock: socket.socket, receive: float, send: float) -> None:
    """Kernel timeouts (0: none) on a blocking socket: recv_into with MSG_WAITALL and sendfile both heed them."""
    for option, seconds in ((socket.SO_RCVTIMEO, receive), (socket.SO_SNDTIMEO, send)):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def receive(sock: socket.socket, size: int, until: float | None = None) -> bytes:
    """Exactly `size` bytes, as `receive_into`."""
    buffer = bytearray(size)
    receive_into(sock, memoryview(buffer), until)
    return bytes(buffer)


def receive_into(sock: socket.socket, view: memoryview, until: float | None = None) -> None:
    """Fill `view`; ConnectionError at the end of the stream, TimeoutError after a silence or at the time `until`."""
    got = 0
    while got < len(view):
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no proof of the key in time")
            set_timeouts(sock, max(left, 0.001), max(left, 0.001))
        try:
            count = sock.recv_into(view[got:], 0, socket.MSG_WAITALL)
        except BlockingIOError:  # how the kernel's own timeout shows
            raise TimeoutError("no answer in time") from None
        if not count:
            raise ConnectionError("the peer closed the connection")
        got += count


def dial(
    host: str, port: int, key: bytes, transfer: bytes, chosen: Hash, connect: float, silence: float
) -> socket.socket:
    """Connect and prove the key both ways; ProtocolError when the listener does not hold it. Times in seconds.

    `host` is an address: no name is looked up in the data path (and no codec for names is loaded).
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(connect)
        sock.connect((host, port))
        sock.settimeout(None)
        hello = wire.hello(transfer, os.urandom(wire.NONCE_SIZE))
        sock.sendall(hello)
        challenge = receive(sock, wire.CHALLENGE_SIZE, time.monotonic() + silence)
        set_timeouts(sock, silence, silence)
        sock.sendall(wire.answer(chosen, key, hello, challenge))
    except BaseException:
        sock.close()
        raise
    return sock


def admit(sock: socket.socket, key: bytes, transfer: bytes, chosen: Hash, seconds: float) -> None:
    """The listener's side of `dial`; ProtocolError for a stranger, TimeoutError for one that takes longer."""
    until = time.monotonic() + seconds
    hello = receive(sock, wire.HELLO.size, until)
    wire.read_hello(hello, transfer)
    nonce = os.urandom(wire.NONCE_SIZE)
    sock.sendall(wire.challenge(chosen, key, hello, nonce))
    if not same(receive(sock, wire.ANSWER_SIZE, until), wire.proof(chosen, key, b"dialer", hello, nonce)):
        raise wire.ProtocolError("the peer does not hold the key")
