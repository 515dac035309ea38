"""The worker's side of the launcher: start a process there, signal it, wait for it. Safe to use from any thread."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from cluster.launch_request import MAX_PACKET, LaunchRequest
from staging.mover.errors import LimitError, StageError, Unreachable, UsageError, from_os_error, from_wire


class Launched:
    """A process that the launcher started. `pid` is also the number of its process group and session."""

    def __init__(self, send: Callable[[dict[str, Any]], None], request_id: int, pid: int, ended: Future[int]):
        self.pid = pid
        self._send = send
        self._id = request_id
        self._ended = ended

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or minus the signal it died of, once nothing of its tree is left.

        `timeout` is in seconds. Raises TimeoutError after it, and Unreachable when the launcher is lost.
        """
        return self._ended.result(timeout)

    def signal(self, signum: int, grace: int = 0) -> None:
        """Send a signal to its process group; no error if it has ended. Raises UsageError, Unreachable.

        Should the process end of it, the rest of its tree has `grace` seconds from now before it is killed.
        """
        if signum not in signal.valid_signals():
            raise UsageError(f"there is no signal {signum}")
        self._send({"id": self._id, "op": "signal", "signal": int(signum), "grace": grace})

    def kill(self) -> None:
        """SIGKILL the whole tree, whatever sessions it made; no error if it has ended. Raises Unreachable."""
        self._send({"id": self._id, "op": "kill"})


class LaunchClient:
    """The one client of a launcher. It owns `sock`, and reads it in a thread of its own until `close`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._ids = itertools.count(1)
        self._lock = threading.Lock()  # over the two below
        self._waiting: dict[int, tuple[Future[int], Future[int]]] = {}  # for its start, for its end
        self._lost = False
        self._reader = threading.Thread(target=self._read, name="launch-client", daemon=True)
        self._reader.start()

    def launch(self, request: LaunchRequest, credential: str, fds: Sequence[int]) -> Launched:
        """Start a process with `fds` as its stdin, stdout and stderr; they stay the caller's to close.

        Blocks until it is started. Raises what the launcher refused it with, LimitError when the request does
        not fit into a packet, Unreachable when the launcher is lost.
        """
        if len(fds) != 3:
            raise UsageError(f"a launch takes three file descriptors, not {len(fds)}")
        request_id = next(self._ids)
        started: Future[int] = Future()
        ended: Future[int] = Future()
        with self._lock:
            self._waiting[request_id] = started, ended
        try:
            order = {"id": request_id, "op": "launch", "credential": credential, **request.to_mapping()}
            self._send(order, fds)
            return Launched(self._send, request_id, started.result(), ended)
        except StageError:
            with self._lock:
                self._waiting.pop(request_id, None)
            raise

    def close(self) -> None:
        """Leave the launcher, which then kills everything it launched; waits for the reading thread."""
        if self._sock.fileno() < 0:
            return
        self._sock.shutdown(socket.SHUT_RDWR)  # wakes the reader, which a mere close would not
        self._reader.join()
        self._sock.close()

    def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        packet = json.dumps(message, separators=(",", ":")).encode("ascii")
        if len(packet) > MAX_PACKET:
            raise LimitError(
                f"the launch request has {len(packet)} bytes, the limit is {MAX_PACKET}",
                "shorten the command line or the environment",
            )
        with self._lock:
            if self._lost:
                raise _gone()
        try:
            socket.send_fds(self._sock, [packet], fds)
        except OSError as error:
            raise from_os_error(error, "send to the launcher") from error

    def _read(self) -> None:
        try:
            while packet := self._receive():
                self._dispatch(json.loads(packet))
        finally:
            with self._lock:
                self._lost = True
                waiting = list(self._waiting.values())
                self._waiting.clear()
            for future in itertools.chain.from_iterable(waiting):
                if not future.done():
                    future.set_exception(_gone())

    def _receive(self) -> bytes:
        while True:
            try:
                return self._sock.recv(MAX_PACKET)
            except ConnectionResetError:  # told once if it ended with an order unread; its last events come after
                continue

    def _dispatch(self, event: dict[str, Any]) -> None:
        with self._lock:
            futures = self._waiting.get(event["id"])
        if futures is None:  # of a launch that was given up
            return
        started, ended = futures
        match event["event"]:
            case "started":
                started.set_result(event["pid"])
            case "ended":
                with self._lock:
                    del self._waiting[event["id"]]
                ended.set_result(event["status"])
            case "refused" if not started.done():
                started.set_exception(from_wire(event["error"]))


def _gone() -> Unreachable:
    return Unreachable("the node's launcher is gone")
