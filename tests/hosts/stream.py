"""How long one plain TCP stream takes from host to host: the limit that benchmarks compare with."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.hosts.host import Host

PORT = 5001
RECEIVE = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
stream, _ = server.accept()
print("connected", flush=True)
left, room = int(sys.argv[3]), memoryview(bytearray(1 << 20))
while left and (got := stream.recv_into(room)):
    left -= got
stream.sendall(b"." if not left else b"!")
"""
SEND = """
import os, socket, sys, time
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sys.stdin.readline()
nbytes, block = int(sys.argv[3]), memoryview(bytes(1 << 20))
begin = time.perf_counter()
for at in range(0, nbytes, len(block)):
    stream.sendall(block[: nbytes - at])
assert stream.recv(1) == b"."
print(time.perf_counter() - begin)
"""


def one_stream(source: Host, destination: Host, nbytes: int, nic: int = 0, port: int = PORT) -> float:
    """Seconds from the first byte of one TCP stream of `nbytes` to the receiver's word that it has the last one.

    Both processes run and are connected before the clock starts.
    """
    python = [sys.executable, "-I", "-S", "-c"]
    words = [destination.addresses[nic], str(port), str(nbytes)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with destination.popen([*python, RECEIVE, *words], **pipes) as receiver:
        try:
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == "ready\n"
            with source.popen([*python, SEND, *words], **pipes) as sender:
                try:
                    assert receiver.stdout.readline() == "connected\n"
                    out, _ = sender.communicate("\n")
                except BaseException:
                    sender.kill()
                    raise
        except BaseException:
            receiver.kill()
            raise
    return float(out)
