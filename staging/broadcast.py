"""The head's part of a broadcast: open a mover on every node, deal the plan, follow each node to its end.

A node that is dead, slow to open or lost on the way costs its own line in the report, never the transfer. One that
comes late, or comes back, is taken in as long as others are at work; a slow one is moved to where it feeds nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from cluster.fleet import Node, Secret
from cluster.gateway import Call
from cluster.head import Head
from cluster.launch_request import LaunchRequest
from staging import tasks
from staging.mover.errors import Interrupted, StageError, TemporaryError, Unreachable, UsageError, from_wire
from staging.orders import Membership, SinkOrder, mover_environment
from staging.plan.topology import parse
from staging.plan.tree import TreePlan
from staging.planning import link_of, plan_for, unlisted_note
from staging.steering import Steering

OPEN_SECONDS = 15
START_SECONDS = 1.5  # what those that have opened grant the others before they start without them
SILENCE_SECONDS = 10
FORGET = 0.8  # of the best rate, with each broadcast that does not reach it
MAX_REPORT_SECONDS = 2.0  # a mover's sign of life comes as often anyhow
WATCH_SECONDS = 0.25
REPORTS_A_SECOND = 64  # of all nodes together


class Broadcast:
    def __init__(self, head: Head, call: Call) -> None:
        request = call.request
        self._fleet = head.fleet
        self._head = head
        self._call = call
        self._label = str(request["label"])
        self._member = Membership(str(request["transfer"]), str(request["key"]))
        self._manifest: dict[str, Any] = request["manifest"]
        self._shape = str(request.get("shape", "auto"))
        self._link = link_of(str(request["source"][0]), float(request.get("link", 0)))
        self._topology = parse(str(request["topology"])) if request.get("topology") else None
        self._host = str(request.get("host", ""))
        self._order = SinkOrder(
            dest=str(request["dest"]),
            manifest=self._manifest,
            into=str(request.get("into", "auto")),
            parents=bool(request.get("parents", False)),
            preserve=bool(request.get("preserve", True)),
            checksum=bool(request.get("checksum", True)),
            rate=int(request.get("rate", 0)),
        ).to_order()
        self._launch = LaunchRequest(
            (), mover_environment(self._order), "/", umask=int(request.get("umask", 0o022)), kind="mover"
        )
        self._names = [str(n) for n in request["nodes"]]
        self._first = set(self._names)  # not opened yet
        self._punctual = set(self._names)  # who may still take a place in the plan
        self._opened: dict[str, Node] = {}
        every = min(MAX_REPORT_SECONDS, max(WATCH_SECONDS, len(self._names) / REPORTS_A_SECOND))
        size, block = self._manifest["bytes"], self._manifest["block"]
        self._steering = Steering(request["source"], size, block, every, head.best_rate)
        self._heard: dict[str, float] = {}  # when, of those that run
        self._sealed = False
        self._tasks: dict[str, asyncio.Task[None]] = {}  # one a node
        self._errands: set[asyncio.Task[None]] = set()
        self._busy = set(self._names)  # not ended, and not waiting for a lost node to return
        self._opening = asyncio.Condition()
        self._ok: list[str] = []
        self._failed: list[str] = []
        self._root = ""
        self._source_error: StageError | None = None

    async def run(self) -> None:
        """Carry the broadcast out, telling the command by events; returns when every node has ended."""
        started = time.monotonic()
        nodes = self._fleet.known(self._names)
        shape = self._plan(self._names).shape
        self._shape = str(shape)
        self._grows = shape.kind in ("chain", "tree") and self._topology is None
        self._tell(
            {
                "type": "transfer-start",
                "what": self._call.request.get("what", ""),
                "direction": self._call.request.get("direction", "copy"),
                "nodes": self._names,
                "addresses": {n.name: n.address for n in nodes},
                "files": self._manifest["files"],
                "bytes": self._manifest["bytes"],
                "method": "tree",
                "detail": self._shape,
            }
        )
        if self._topology and (unlisted := self._topology.unlisted(self._names)):
            self._tell({"type": "note", "node": "", "message": unlisted_note(unlisted)})
        self._fleet.listen(self._member.transfer, self._on_event)
        working = asyncio.create_task(self._work(nodes))
        listening = asyncio.create_task(self._listen())
        try:
            await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                listening.result()  # a line that makes no sense ends the broadcast
            await working
        finally:
            for task in (working, listening):
                task.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)
            self._fleet.unlisten(self._member.transfer)
        self._head.best_rate = max(self._steering.best_rate(), self._head.best_rate * FORGET)
        # nobody need wait until the movers have ended
        self._call.afterwards.append(lambda: self._head.background(self._control({"op": "finish"})))
        self._tell(
            {
                "type": "transfer-end",
                "bytes": self._manifest["bytes"],
                "seconds": time.monotonic() - started,
                "digest": self._root,
                "ok": self._ok,
                "failed": self._failed,
            }
        )

    async def _work(self, nodes: list[Node]) -> None:
        watch = asyncio.create_task(self._start_and_watch())
        try:
            self._credential = self._head.credential(self._call.caller, self._names, self._launch)
            self._tasks = {node.name: asyncio.create_task(self._follow(node)) for node in nodes}
            everything = asyncio.create_task(_all([*self._tasks.values()]))
            try:
                await asyncio.wait({everything, watch}, return_when=asyncio.FIRST_COMPLETED)
                if not everything.done():
                    watch.result()  # it ends by an error only
                await everything
            finally:
                left = [watch, everything, *self._tasks.values(), *self._errands]
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)
        except BaseException:
            await asyncio.shield(self._control({"op": "abort", "keep": True}))
            raise

    def _plan(self, names: Sequence[str]) -> TreePlan:
        size, block = self._manifest["bytes"], self._manifest["block"]
        return plan_for(names, size, self._link, self._shape, block, self._topology, self._host)[0]

    def _tell(self, event: dict[str, Any]) -> None:
        self._call.tell({"transfer": self._label, **event})

    # one node, from its opening to its end -------------------------------------------------------------------

    async def _follow(self, node: Node) -> None:
        name = node.name
        try:
            while True:
                try:
                    await self._open(node)
                    await self._run(node)
                    return
                except Unreachable as error:
                    found = await self._returned(node, error)
                    if found is None:
                        raise
                    node = found
        except StageError as error:
            self._fail(name, self._source_error or error, error.partial)
        finally:
            await self._idle(name)

    async def _open(self, node: Node) -> None:
        """Start the node's mover and wait until the transfer has started."""
        self._opened[node.name] = node
        if node.name in self._first:  # signing takes milliseconds: once for all of them, unless one comes back
            self._first.discard(node.name)
            credential = self._credential
        else:
            credential = self._head.credential(self._call.caller, [node.name], self._launch)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                event = await self._fleet.call(
                    node, self._label, tasks.open_mover, Secret(self._member), self._order, self._launch, credential
                )
        except TimeoutError:
            raise TemporaryError(f"{node.name} did not open within {OPEN_SECONDS} s") from None
        _raise(event)
        host, port = event["endpoint"]
        async with self._opening:
            self._steering.endpoints[node.name] = (str(host), int(port))
            self._opening.notify_all()
            await self._opening.wait_for(lambda: self._steering.started)
        if self._source_error is not None:  # it failed, or was stopped, while the nodes opened
            raise self._source_error

    async def _run(self, node: Node) -> None:
        name = node.name
        self._heard[name] = time.monotonic()
        self._turn(self._steering.join(name, late=not self._grows or name not in self._punctual), but=name)
        order = {**self._steering.order("run", name), "root": self._root}
        try:
            event = await self._fleet.call(node, self._label, tasks.run_mover, self._member.transfer, order, "done")
        except StageError as error:
            error.partial = True
            raise
        _raise(event)
        self._steering.completed(name)  # one that had everything already does not say so before
        if name not in self._failed:
            self._ok.append(name)
            fields = ("bytes", "fetched", "reused", "skipped", "seconds", "digest")
            self._tell({"type": "node-done", "node": name, **{f: event[f] for f in fields}})

    async def _returned(self, node: Node, error: Unreachable) -> Node | None:
        """The node when it is back; None when there is nobody left at work to wait with."""
        self._punctual.discard(node.name)
        ran = self._heard.pop(node.name, None) is not None
        self._turn(self._steering.leave(node.name))
        await self._idle(node.name)
        if ran and self._busy and self._source_error is None:
            self._tell(
                {"type": "note", "node": node.name, "message": f"{error.message}; it is taken back if it returns"}
            )
        back = asyncio.create_task(self._fleet.back(node))
        over = asyncio.create_task(self._over())
        try:
            await asyncio.wait({back, over}, return_when=asyncio.FIRST_COMPLETED)
            if not back.done() or not self._busy or self._source_error is not None:
                return None
            self._busy.add(node.name)
            return back.result()
        finally:
            for task in (back, over):
                task.cancel()
            await asyncio.gather(back, over, return_exceptions=True)

    async def _idle(self, name: str) -> None:
        async with self._opening:
            self._busy.discard(name)
            self._opening.notify_all()

    async def _over(self) -> None:
        async with self._opening:
            await self._opening.wait_for(lambda: not self._busy)

    def _fail(self, node: str, error: StageError, partial: bool) -> None:
        if node in self._failed or node in self._ok:
            return
        self._turn(self._steering.leave(node))
        self._failed.append(node)
        self._tell({"type": "node-failed", "node": node, "error": error.to_wire(), "partial": partial})

    # the tree -----------------------------------------------------------------------------------------------

    async def _start_and_watch(self) -> None:
        """Start the transfer, then look after the slow and the silent.

        A chain or a k-ary tree begins with the first node and grows at its end, so nobody waits for the slowest to
        open. Other trees wait for all, but not for long.
        """
        steering = self._steering
        async with self._opening:
            await self._opening.wait_for(lambda: steering.endpoints)
            if not self._grows:
                with contextlib.suppress(TimeoutError):  # the others join when they are ready
                    async with asyncio.timeout(START_SECONDS):
                        await self._opening.wait_for(lambda: self._busy <= steering.endpoints.keys())
            ready = [name for name in self._names if name in steering.endpoints]
            steering.start(ready, self._plan, time.monotonic())
            self._opening.notify_all()
        started = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            if now - started > START_SECONDS:
                self._punctual.clear()
            for name in [n for n, heard in self._heard.items() if now - heard > SILENCE_SECONDS]:
                del self._heard[name]
                if not self._tasks[name].done():
                    silent = Unreachable(f"{name} has been silent for {SILENCE_SECONDS} s")
                    self._fail(name, self._source_error or silent, True)
                    self._tasks[name].cancel()
                    # no more orders for it after this one: each would wait for an answer
                    self._errand(self._fleet.control(self._opened.pop(name), self._member.transfer, {"op": "kill"}))
            slow, changed = steering.adjust(now)
            self._turn(changed)
            if slow is not None:
                self._tell({"type": "note", "node": slow, "message": "slow; the others go on without waiting for it"})

    def _turn(self, changed: list[str], but: str = "") -> None:
        """Tell those that run already of their new feeds."""
        for name in changed:
            if name != but and name in self._heard:
                order = self._steering.order("feeds", name)
                self._errand(self._fleet.control(self._opened[name], self._member.transfer, order))

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that nobody waits for: an order to a node that may be slow to take it."""
        task = asyncio.create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # what the nodes and the command say -----------------------------------------------------------------------

    def _on_event(self, node: str, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if node in self._heard:
            self._heard[node] = now
        if event["event"] == "progress":
            self._steering.heard(node, int(event["bytes"]), now)
            self._tell({"type": "progress", "node": node, "bytes": event["bytes"]})
        elif event["event"] == "note":
            self._tell({"type": "note", "node": node, "message": event["message"]})
        elif event["event"] == "complete":
            self._steering.completed(node)
            if not self._sealed:
                self._sealed = True  # by now the source has sent, and so hashed, nearly everything
                self._tell({"type": "seal"})

    async def _listen(self) -> None:
        """The command drives the source's mover: it brings the content digest, or word that the source failed."""
        while True:
            line = await self._call.receive()
            if line.get("op") == "root":
                self._root = str(line["digest"])
                # those that open later get it with the order to run; an order ahead of the opening one would end them
                await self._control({"op": "root", "digest": self._root}, [*self._steering.endpoints])
            elif line.get("op") == "source-failed":
                self._source_error = from_wire(line["error"])
                await self._control({"op": "abort", "keep": isinstance(self._source_error, TemporaryError)})
            elif line.get("op") == "stop":
                why = from_wire(line["error"]) if "error" in line else Interrupted("the command was interrupted")
                self._source_error = why
                await self._control({"op": "abort", "keep": True})
            else:
                raise UsageError(f"a broadcast does not know {line.get('op')!r}")

    async def _control(self, order: dict[str, Any], names: Sequence[str] | None = None) -> None:
        nodes = [self._opened[name] for name in (self._opened if names is None else names)]
        orders = [self._fleet.control(node, self._member.transfer, order) for node in nodes]
        await asyncio.gather(*orders, return_exceptions=True)


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(error, Exception):  # not the cancelling of a node that was given up
            raise error


def _raise(event: dict[str, Any]) -> None:
    """The error that a task answered with."""
    if event["event"] == "error":
        error = from_wire(event["error"])
        error.partial = bool(event["partial"])
        raise error
