"""A mover started by the launcher, seen from the worker: orders go in, events come out."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from cluster.launch_client import LaunchClient
from cluster.launch_request import LaunchRequest
from staging.mover.errors import Interrupted, TemporaryError


class MoverPipe:
    """Its reader thread hands every event to `forward` and keeps the latest for `expect`."""

    def __init__(
        self,
        launcher: LaunchClient,
        request: LaunchRequest,
        credential: str,
        forward: Callable[[dict[str, Any]], None],
        log: int,
    ) -> None:
        orders, self._orders = os.pipe()
        events, output = os.pipe()
        os.set_inheritable(orders, False)
        try:
            self._launched = launcher.launch(request, credential, (orders, output, log))
        except BaseException:
            os.close(self._orders)
            os.close(events)
            raise
        finally:
            os.close(orders)
            os.close(output)
        self._forward = forward
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(events,), name="mover", daemon=True)
        self._reader.start()

    def send(self, order: dict[str, Any]) -> None:
        """Write an order; one to a mover that has ended goes nowhere, its end is told by its events."""
        line = json.dumps(order).encode("ascii") + b"\n"
        with self._lock:
            try:
                while line and self._orders >= 0:
                    line = line[os.write(self._orders, line) :]
            except BrokenPipeError:
                return

    def expect(self, *names: str, timeout: float | None = None) -> dict[str, Any]:
        """The next event of one of these names, or the `error` that ended the mover."""
        while True:
            try:
                event = self._events.get(timeout=timeout)
            except queue.Empty:
                raise TemporaryError(f"the mover did not answer within {timeout:g} s") from None
            if event is None:
                raise Interrupted(f"the mover ended unexpectedly ({self._launched.wait()})")
            if event["event"] in (*names, "error"):
                return event

    def end(self) -> None:
        """Let the mover end by closing its orders, and wait for it."""
        with self._lock:
            if self._orders >= 0:
                os.close(self._orders)
                self._orders = -1
        self._reader.join()
        self._launched.wait()

    def kill(self) -> None:
        self._launched.kill()

    def _read(self, events: int) -> None:
        with os.fdopen(events, "rb") as lines:
            for line in lines:
                event = json.loads(line)
                self._forward(event)
                if event["event"] != "progress":
                    self._events.put(event)
        self._events.put(None)
