"""What a node's worker offers to the tasks that run on it: the launcher, the way to send events, running targets."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster.fleet import EVENT_OP

if TYPE_CHECKING:
    from distributed import Worker

    from cluster.launch_client import LaunchClient

Order = Callable[[dict[str, Any]], None]

MAX_EARLY = 1000


class Agent:
    """One a worker process. A target is a mover or a process under the name by which the head addresses it."""

    def __init__(self, node: str, address: str, root: str, launcher: LaunchClient) -> None:
        self.node = node
        self.address = address
        self.root = root
        self.launcher = launcher
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._targets: dict[str, Order] = {}
        self._early: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_EARLY)

    def attach(self, worker: Worker) -> None:
        self._worker = worker

    def send(self, target: str, event: dict[str, Any]) -> None:
        """Tell the head of an event; from any thread."""
        worker = self._worker
        if worker is not None:
            message = {"op": EVENT_OP, "node": self.node, "target": target, "event": json.dumps(event)}
            worker.loop.add_callback(worker.batched_stream.send, message)

    def add(self, target: str, order: Order) -> None:
        """Make a target known, and give it the orders that were faster than its start."""
        with self._lock:
            self._targets[target] = order
            early = [message for name, message in self._early if name == target]
        for message in early:
            order(message)

    def remove(self, target: str) -> None:
        with self._lock:
            self._targets.pop(target, None)

    def control(self, target: str, order: dict[str, Any]) -> None:
        """An order from the head; one for a target that has ended is no error, one for a later target is kept."""
        with self._lock:
            call = self._targets.get(target)
            if call is None:
                self._early.append((target, order))
        if call is not None:
            call(order)


_current: Agent | None = None


def install(agent: Agent) -> None:
    global _current
    _current = agent


def current() -> Agent:
    """The agent of this worker process, for tasks."""
    assert _current is not None, "not a stage node's worker"
    return _current
