"""The launcher: the only privileged code on a node; it starts processes for users who gave a credential.

Single-threaded, forked before anything else. One client holds the other end of its socket, a unix
SOCK_SEQPACKET pair. One packet is one JSON object of at most 128 KiB:

    {"id", "op": "launch", "credential", + LaunchRequest}   with three descriptors: stdin, stdout, stderr
    {"id", "op": "signal", "signal": int, "grace": int}     to the process group; seconds for what outlives the process
    {"id", "op": "kill"}                                    SIGKILL to the whole tree
    {"id", "event": "started", "pid"}
    {"id", "event": "refused", "error"}                     the error in its wire form; nothing was started
    {"id", "event": "ended", "status"}                      exit code or minus the signal; nothing is left

The client chooses the ids. An order for a process that has ended is not an error, since the two may cross.
An empty packet, like the end of the socket and like SIGTERM, ends the launcher: it kills what it launched,
waits until that is gone, and returns.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster import forking
from cluster.become import Main, become
from cluster.credentials import Claims, Verifier, request_digest
from cluster.launch_request import ACTION, MAX_PACKET, LaunchRequest, parse_order, to_bytes
from cluster.minders import Minders
from staging.mover.errors import RefusedError, StageError, UsageError, from_os_error
from staging.mover.title import name_process

MAX_GRACE = 3600


def start(node: str, public_key_path: Path) -> tuple[int, socket.socket]:
    """Fork the launcher of `node` out of the calling process: its pid, and the client's end of its socket."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise StageError("the launcher must be forked before any thread is started")
    forking.open_standard_streams()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PACKET)

    def run() -> int:
        forking.close_all_but({0, 1, 2, theirs.fileno()})  # whatever its starter had open is not for it
        os.setsid()  # away from the terminal of whoever started the node
        try:
            return main(theirs, node=node, public_key_path=public_key_path)
        except StageError as error:
            os.write(2, to_bytes(f"launcher: {error}\n"))
            return error.exit_code

    pid = forking.fork(run)
    theirs.close()
    return pid, ours


def main(sock: socket.socket, *, node: str, public_key_path: Path, clock: Callable[[], float] = time.time) -> int:
    """Serve the client on `sock` until it is gone; the exit code. `clock` gives seconds since the epoch.

    Descriptors 0 to 2 must be open. Raises SourceError and RefusedError for the public key.
    """
    mover = preload()
    name_process("stage-launcher")
    verifier = Verifier(public_key_path)

    def check(credential: str, request: LaunchRequest) -> Claims:
        digest = request_digest(request.to_mapping())
        claims = verifier.check(credential, action=ACTION, node=node, digest=digest, now=clock())
        if os.getuid() not in (0, claims.uid):
            raise RefusedError(f"this launcher starts processes for uid {os.getuid()} only, not for {claims.uid}")
        return claims

    forking.become_subreaper()
    forking.children()  # fails here, rather than at the first process's end, where /proc cannot tell
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # a collection in a forked child would touch, and so copy, every page of this process
    _Launcher(sock, check, mover).run()
    return 0


def preload() -> Main:
    """The mover's main function, imported before the first fork so that no mover waits for imports."""
    from staging.mover.__main__ import main as mover

    return mover


class _Launcher:
    """The event loop. Owner of the client's socket and of the packets that the client has not taken yet."""

    def __init__(self, sock: socket.socket, check: Callable[[str, LaunchRequest], Claims], mover: Main) -> None:
        self._sock = sock
        self._check = check
        self._mover = mover
        self._outgoing: deque[bytes] = deque()
        self._closing = False
        self._woken = forking.wake_on(signal.SIGCHLD, signal.SIGTERM)
        self._selector = selectors.DefaultSelector()
        self._minders = Minders(self._selector, self._send)
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, self._receive)
        self._selector.register(self._woken, selectors.EVENT_READ, lambda: None)

    def run(self) -> None:
        """Serve until the client is gone or SIGTERM comes, and nothing that was launched is left."""
        left = False
        while left or not self._closing:
            for key, mask in self._selector.select():
                if mask & selectors.EVENT_READ:
                    key.data()
            if signal.SIGTERM in forking.arrived(self._woken):
                self._close()
            left = self._minders.reap()
            self._flush()

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._selector.unregister(self._sock)
            self._sock.close()
            self._minders.kill_all()

    def _receive(self) -> None:
        try:
            packet, fds, flags, _ = socket.recv_fds(self._sock, MAX_PACKET, 3, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # gone, with a packet of ours unread
            self._close()
            return
        try:
            if packet:
                self._handle(packet, fds, flags)
            else:
                self._close()
        finally:
            for fd in fds:
                os.close(fd)

    def _handle(self, packet: bytes, fds: Sequence[int], flags: int) -> None:
        request_id = None
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise UsageError(f"a packet has more than {MAX_PACKET} bytes or more than three file descriptors")
            message = parse_order(packet)
            request_id = message["id"]
            match message.get("op"):
                case "launch":
                    self._launch(request_id, message, fds)
                case "signal":
                    signum, grace = message.get("signal"), message.get("grace", 0)
                    if type(signum) is not int or signum not in forking.ALL_SIGNALS:
                        raise UsageError("there is no such signal")
                    if type(grace) is not int or not 0 <= grace <= MAX_GRACE:
                        raise UsageError(f"the grace is not a whole number of seconds up to {MAX_GRACE}")
                    self._minders.signal(request_id, signum, grace)
                case "kill":
                    self._minders.kill(request_id)
                case _:
                    raise UsageError("the launcher knows the orders launch, signal and kill")
        except StageError as error:
            self._send({"id": request_id, "event": "refused", "error": error.to_wire()})

    def _launch(self, request_id: int, message: dict[str, Any], fds: Sequence[int]) -> None:
        credential = message.get("credential")
        if not isinstance(credential, str) or len(fds) != 3 or request_id in self._minders:
            raise UsageError("a launch needs a credential, three file descriptors and an id that is not in use")
        request = LaunchRequest.from_mapping(message)
        claims = self._check(credential, request)
        try:
            self._minders.start(request_id, functools.partial(become, request, claims, fds, self._mover), fds)
        except OSError as error:
            raise from_os_error(error, "start a process") from error

    def _send(self, message: dict[str, Any]) -> None:
        self._outgoing.append(json.dumps(message).encode("ascii"))

    def _flush(self) -> None:
        """Send what the client takes. While it does not take all of it, no more of its orders are read."""
        if self._closing:
            return
        try:
            while self._outgoing:
                self._sock.send(self._outgoing[0])
                self._outgoing.popleft()
        except BlockingIOError:
            pass  # the selector says when it takes more
        except ConnectionError:
            self._close()
            return
        wanted = selectors.EVENT_WRITE if self._outgoing else selectors.EVENT_READ
        self._selector.modify(self._sock, wanted, self._receive)
