"""The launcher's table of minders: which request each stands for, what it reports, and what is left if it is killed."""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from cluster import forking, minder
from staging.mover.errors import TemporaryError


@dataclass
class _Entry:
    request_id: int
    pid: int
    control: socket.socket
    started: bool = False
    ended: bool = False


class Minders:
    """Owner of the minders' pids and control sockets; for one process, which must be a subreaper.

    `report` receives the events for the client. What `selector` says about the sockets registered here is to be
    answered by calling the key's `data`, and every SIGCHLD by `reap`.
    """

    def __init__(self, selector: selectors.BaseSelector, report: Callable[[dict[str, Any]], None]) -> None:
        self._selector = selector
        self._report = report
        self._entries: dict[int, _Entry] = {}  # by request
        self._killed: list[_Entry] = []  # the minder was killed; its tree may not be gone yet

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._entries

    def start(self, request_id: int, run: Callable[[int], int], stdio: Collection[int]) -> None:
        """Fork a minder that runs `run`, see `minder.start`. Raises OSError."""
        entry = self._entries[request_id] = _Entry(request_id, *minder.start(run, stdio))
        self._selector.register(entry.control, selectors.EVENT_READ, functools.partial(self._hear, entry))

    def signal(self, request_id: int, signum: int, grace: int = 0) -> None:
        """Signal the process group of a request; no error if it has ended. `grace`: see `minder`."""
        if entry := self._entries.get(request_id):
            # a minder that is gone, or does not read any more, is killing its tree already
            with contextlib.suppress(BlockingIOError, ConnectionError):
                entry.control.send(b"%d %d" % (signum, grace))

    def kill(self, request_id: int) -> None:
        """Kill the tree of a request; no error if it has ended."""
        if entry := self._entries.get(request_id):
            os.kill(entry.pid, signal.SIGTERM)

    def kill_all(self) -> None:
        """Kill the tree of every request."""
        for request_id in self._entries:
            self.kill(request_id)

    def reap(self) -> bool:
        """Note which minders ended, and kill what a killed minder left, now our child; whether anything is left."""
        by_pid = {entry.pid: entry for entry in self._entries.values()}
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if pid in by_pid:
                    self._remove(by_pid.pop(pid))
        orphans = forking.children() - by_pid.keys()
        for pid in orphans:
            forking.kill_child(pid)
        while self._killed and not orphans:
            self._report_killed(self._killed.pop())
        return bool(by_pid or orphans)

    def _remove(self, entry: _Entry) -> None:
        self._hear(entry)
        self._selector.unregister(entry.control)
        entry.control.close()
        del self._entries[entry.request_id]
        if not entry.ended:
            self._killed.append(entry)

    def _hear(self, entry: _Entry) -> None:
        while packet := _receive(entry.control):
            word, number = packet.decode("ascii").split()
            if word == "started":
                entry.started = True
                self._report({"id": entry.request_id, "event": "started", "pid": int(number)})
            else:
                entry.ended = True
                self._report({"id": entry.request_id, "event": "ended", "status": int(number)})

    def _report_killed(self, entry: _Entry) -> None:
        if entry.started:
            self._report({"id": entry.request_id, "event": "ended", "status": -signal.SIGKILL})
        else:
            error = TemporaryError("the node could not start another process")
            self._report({"id": entry.request_id, "event": "refused", "error": error.to_wire()})


def _receive(control: socket.socket) -> bytes:
    """The next packet, or nothing where there is none."""
    while True:
        try:
            return control.recv(64)
        except BlockingIOError:
            return b""
        except ConnectionResetError:  # told once if the minder ended with a signal unread; its report comes after
            continue
