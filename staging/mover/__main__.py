"""The mover program: orders as JSON lines on stdin, events as JSON lines on stdout. See docs/protocol.md."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any

from .errors import Interrupted, RefusedError, StageError, UsageError, from_os_error
from .order import order_digest
from .session import Session, SinkSession, SourceSession
from .title import name_process

TICK_SECONDS = 0.25
MAX_LINE = 16 << 20


class Control:
    """stdin and stdout as lines of JSON; stdin's end is None."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buffer = b""
        self._unread = False

    def emit(self, event: dict[str, Any]) -> None:
        """Write a line; when nobody reads any more, the next orders are their end."""
        line = json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(1, line) :]
            except BrokenPipeError:
                self._unread = True

    def orders(self, timeout: float) -> list[dict[str, Any] | None]:
        """What arrived within `timeout` seconds."""
        if self._unread:
            return [None]
        if not select.select([0], [], [], timeout)[0]:
            return []
        data = os.read(0, 1 << 16)
        if not data or len(self._buffer) > MAX_LINE:
            return [None]
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines if line]


def _open(order: dict[str, Any], control: Control) -> Session:
    roles = {"source": SourceSession, "sink": SinkSession}
    if order.get("op") != "open" or order.get("role") not in roles:
        raise UsageError("the first order must open a source or a sink")
    bound = os.environ.get("STAGE_ORDER")
    if bound is not None and bound != order_digest(order):
        raise RefusedError("this mover was started for another order")
    return roles[order["role"]](order, control.emit)


def serve(control: Control) -> int:
    """Carry out orders until the replica is not needed any more; the exit code says how it ended."""
    session: Session | None = None
    keep = True
    stopped = False
    error: StageError | None = None
    while not stopped and error is None:
        try:
            for order in control.orders(TICK_SECONDS):
                if order is None or order["op"] in ("finish", "abort"):
                    keep = order is None or bool(order.get("keep", True))
                    stopped = True
                    if order is None or order["op"] == "abort":
                        error = Interrupted("the transfer was stopped")
                    break
                if session is None:
                    session = _open(order, control)
                else:
                    session.handle(order)
        except StageError as raised:
            error = raised
        except OSError as raised:
            error = from_os_error(raised, "go on")
        except (KeyError, TypeError, ValueError) as raised:
            error = UsageError(f"an order that cannot be read: {raised!r}")
        if session is not None and error is None:
            error = session.replica.failed
            session.tick(time.monotonic())
    partial = session.close(keep) if session is not None else False
    if error is None:
        return 0
    control.emit({"event": "error", "error": error.to_wire(), "partial": partial})
    return error.exit_code


def main(argv: list[str] | None = None) -> int:
    """Entry point; the command line carries nothing, since other users can read it."""
    name_process("stage-mover")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is for whoever drives us
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    return serve(Control())


def _terminate(*_: object) -> None:
    # the loop sees the end of its orders, gives the replica up and keeps what can be resumed
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


if __name__ == "__main__":
    sys.exit(main())
