"""The head's view of its nodes: tasks pinned to a node's worker, orders to what runs there, and word of their loss."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from cluster.nodes import fold
from staging.mover.errors import StageError, Unreachable, UsageError

EVENT_OP = "stage-event"
CONTROL_OP = "stage_control"
CONTROL_SECONDS = 8
PROBE_SECONDS = 3


@dataclass(frozen=True)
class Node:
    """A node: its name, its address, the root of its file tree ("" for the machine's), its service's pid.

    `door` is the socket at which commands there reach the head, `programs` the directory that has them.
    """

    name: str
    address: str
    root: str
    pid: int
    worker: str
    up: bool
    door: str = ""
    programs: str = ""


class Secret:
    """A value that never shows in a log or a repr (Dask logs the arguments of tasks that fail)."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<secret>"


class Fleet(SchedulerPlugin):
    name = "stage-fleet"

    def __init__(self, scheduler: Scheduler, client: Client) -> None:
        self._scheduler = scheduler
        self._seen: dict[str, Node] = {}
        self._client = client
        self._losses: dict[str, set[asyncio.Future[None]]] = {}
        self._listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}
        self._attempt = itertools.count(1)
        self.changed = asyncio.Condition()
        scheduler.stream_handlers[EVENT_OP] = self._on_event
        scheduler.add_plugin(self)

    # who is there ---------------------------------------------------------------------------------------

    def nodes(self) -> dict[str, Node]:
        """Every node that has ever joined this head, in the order of their names; `state` says whether it is up."""
        up = {}
        for state in self._scheduler.workers.values():
            extra = state.extra.get("stage")
            if extra:
                name = str(state.name)
                up[name] = Node(name=name, worker=state.address, up=True, **extra)
        self._seen.update(up)
        found = [up.get(name) or replace(node, up=False) for name, node in self._seen.items()]
        return {n.name: n for n in sorted(found, key=lambda n: (len(n.name), n.name))}

    def up(self) -> list[Node]:
        return [n for n in self.nodes().values() if n.up]

    def known(self, names: Sequence[str]) -> list[Node]:
        """The named nodes, in that order, up or down; UsageError for a name that never joined."""
        known = self.nodes()
        for name in names:
            if name not in known:
                raise UsageError(f"there is no node {name}", f"the nodes are {fold(known) if known else 'none yet'}")
        return [known[name] for name in names]

    async def probe(self) -> None:
        """Ask every node for a word; one that has none to say is down from now on, not only when Dask gives it up."""
        await asyncio.gather(*(self._probe(node) for node in self.up()))

    async def _probe(self, node: Node) -> None:
        answers: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBE_SECONDS):
                answers = await self._scheduler.broadcast(
                    msg={"op": "identity"}, workers=[node.worker], on_error="ignore"
                )
        if not answers and node.worker in self._scheduler.workers:
            await self._scheduler.remove_worker(node.worker, stimulus_id=f"stage-probe-{next(self._attempt)}")

    async def back(self, node: Node) -> Node:
        """Wait until a node that was lost has joined again."""
        async with self.changed:
            await self.changed.wait_for(lambda: self._again(node))
        return self.nodes()[node.name]

    def _again(self, node: Node) -> bool:
        found = self.nodes()[node.name]
        return found.up and (found.worker != node.worker or not node.up)

    async def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self.nodes()  # noted, whether or not anybody asks before it is lost
        async with self.changed:
            self.changed.notify_all()

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        for loss in self._losses.pop(worker, set()):
            if not loss.done():
                loss.set_result(None)

    # tasks ----------------------------------------------------------------------------------------------

    async def call(self, node: Node, label: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` as a Dask task on the node and return its value.

        `label` becomes part of the task's key. Raises Unreachable when the node is lost, and cancels the task when
        this coroutine is cancelled (what runs on the node is told by `control`).
        """
        key = (f"stage-{function.__name__}", printable_key(label), node.name, next(self._attempt))
        loss: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if node.worker not in self._scheduler.workers:
            raise Unreachable(f"{node.name} ({node.address}) is gone")
        self._losses.setdefault(node.worker, set()).add(loss)
        future = self._client.submit(
            function,
            *args,
            key=key,
            workers=[node.worker],
            allow_other_workers=False,
            pure=False,
            resources={"stage": 1},
            retries=0,
        )
        result = asyncio.ensure_future(future.result())
        try:
            await asyncio.wait({result, loss}, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return self._value(result, node)
            raise Unreachable(f"{node.name} ({node.address}) was lost")
        finally:
            self._losses.get(node.worker, set()).discard(loss)
            loss.cancel()
            if not result.done():
                result.cancel()
                await asyncio.gather(result, return_exceptions=True)
            future.release()

    @staticmethod
    def _value(result: asyncio.Future[Any], node: Node) -> Any:
        try:
            return result.result()
        except StageError:
            raise
        except Exception as error:  # a bug of ours on the node, or Dask gave the task up
            raise StageError(f"{node.name} ({node.address}): {type(error).__name__}: {error}") from error

    # orders and events ----------------------------------------------------------------------------------

    async def control(self, node: Node, target: str, order: dict[str, Any]) -> None:
        """Give an order to the mover or process `target` on the node; a node that is gone needs none."""
        if node.worker not in self._scheduler.workers:
            return
        with contextlib.suppress(TimeoutError):  # a frozen worker; its node is given up for other reasons
            message = {"op": CONTROL_OP, "target": target, "order": json.dumps(order)}
            async with asyncio.timeout(CONTROL_SECONDS):
                await self._scheduler.broadcast(msg=message, workers=[node.worker], on_error="ignore")

    def listen(self, target: str, callback: Callable[[str, dict[str, Any]], None]) -> None:
        """Call `callback(node, json.loads(event))` for each event about `target`, until `unlisten`."""
        self._listeners[target] = callback

    def unlisten(self, target: str) -> None:
        self._listeners.pop(target, None)

    def _on_event(self, worker: str, node: str, target: str, event: str, **_: Any) -> None:
        callback = self._listeners.get(target)
        if callback is not None:
            callback(node, json.loads(event))


def printable_key(text: str) -> str:
    """`text` as a part of a task's key: a name that is not UTF-8 would break Dask's connections."""
    return text.encode("ascii", "backslashreplace").decode("ascii")
