"""The node service started by a service manager's socket, at the first connection of a head (xinetd's role).

    python -m cluster.activated --keys DIR        with the listening socket as descriptor 3 (sd_listen_fds(3))

Only a holder of the site's keys (`stage keys`) gets beyond the TLS handshake. It sends the line that an ssh session
would carry and gets the same answer (cluster.bootstrap). The process ends with the node it has started, or when nobody
has come for a while; the socket stays the service manager's, which starts it again.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import select
import socket
import ssl
import sys
import time
from pathlib import Path

from cluster import pki
from cluster.bootstrap import MAX_PAYLOAD, Unborn
from staging.mover.errors import StageError, TemporaryError, UsageError
from staging.mover.title import name_process

FIRST_FD = 3  # SD_LISTEN_FDS_START
HANDSHAKE_SECONDS = 5
IDLE_SECONDS = 60


def listener() -> socket.socket:
    """The one listening socket that was passed to this process. Raises UsageError."""
    passed = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if passed != (str(os.getpid()), "1"):
        raise UsageError("no listening socket was passed", "start longshore-node.socket, which starts this")
    os.set_inheritable(FIRST_FD, False)
    sock = socket.socket(fileno=FIRST_FD)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise UsageError("what was passed is no listening stream socket", "use ListenStream= and Accept=no")
    return sock


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.activated")
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="seconds to wait for a head")
    args = parser.parse_args(argv)
    name_process("stage-activated")
    try:
        door = listener()
        unborn = Unborn()
        files = pki.existing(args.keys, now=datetime.datetime.now(datetime.UTC))
        return _serve(door, unborn, pki.server_context(files), args.idle)
    except StageError as error:
        print(f"stage node: {error}", file=sys.stderr)  # noqa: T201 - this is its log
        return error.exit_code


def _serve(door: socket.socket, unborn: Unborn, context: ssl.SSLContext, idle: float) -> int:
    """Start the node for the first head that proves itself, and tell later ones that it has one; the exit code."""
    node = os.pidfd_open(unborn.pid)
    up = False
    end = time.monotonic() + idle
    while up or time.monotonic() < end:
        heard = select.select([door.fileno(), node], [], [], None if up else max(0.0, end - time.monotonic()))[0]
        if node in heard:
            os.waitpid(unborn.pid, 0)
            return 0 if up else 1
        if door.fileno() not in heard:
            continue
        with contextlib.suppress(OSError), _greet(door, context) as head:  # a stranger, or gone
            line = head.makefile("rb").readline(MAX_PAYLOAD)
            if up:
                busy = TemporaryError("its node belongs to another cluster", "end that one, or wait for its end")
                answer = {"error": busy.to_wire()}
            else:
                answer = unborn.start(line, head.fileno())
                up = "up" in answer
            head.sendall(json.dumps(answer).encode("ascii") + b"\n")
            if not up:
                return 1  # and again, from the beginning, for the next
    return 0


def _greet(door: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """The next connection, once it has proved itself. Raises OSError."""
    sock, _ = door.accept()
    try:
        sock.settimeout(HANDSHAKE_SECONDS)
        return context.wrap_socket(sock, server_side=True)
    except BaseException:
        sock.close()
        raise


if __name__ == "__main__":
    sys.exit(main())
