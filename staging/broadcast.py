"""The head's part of a broadcast: open a mover on every node, deal the plan, follow each node to its end.

A node that is dead, slow to open or lost on the way costs its own line in the report, never the transfer.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from cluster.fleet import Node, Secret
from cluster.gateway import Call
from cluster.head import Head
from cluster.launch_request import LaunchRequest
from staging import tasks
from staging.mover.errors import Interrupted, StageError, TemporaryError, Unreachable, UsageError, from_wire
from staging.orders import Membership, SinkOrder, feeds_order, mover_environment
from staging.plan.cost import DEFAULT_LINK, choose
from staging.plan.tree import Shape, TreePlan, build

OPEN_SECONDS = 15
SILENCE_SECONDS = 10
SOURCE = "source"


class Broadcast:
    def __init__(self, head: Head, call: Call) -> None:
        request = call.request
        self._fleet = head.fleet
        self._head = head
        self._call = call
        self._label = str(request["label"])
        self._member = Membership(str(request["transfer"]), str(request["key"]))
        self._manifest: dict[str, Any] = request["manifest"]
        self._source = (SOURCE, *request["source"])
        self._shape = str(request.get("shape", "auto"))
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
        self._opened: dict[str, Node] = {}
        self._heard: dict[str, float] = {}
        self._sealed = False
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ok: list[str] = []
        self._failed: list[str] = []
        self._root = ""
        self._source_error: StageError | None = None

    async def run(self) -> None:
        """Carry the broadcast out, telling the command by events; returns when every node has ended."""
        started = time.monotonic()
        nodes = self._fleet.known(self._names)
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
                "detail": str(self._choose(len(nodes))),
            }
        )
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
        try:
            credential = self._head.credential(self._call.caller, self._names, self._launch)
            endpoints = await self._open(nodes, credential)
            if self._source_error is not None:  # it failed, or was stopped, while the nodes opened
                for name in endpoints:
                    self._fail(name, self._source_error, False)
            elif endpoints:
                await self._run(endpoints)
            await self._control({"op": "finish"})
        except BaseException:
            await asyncio.shield(self._control({"op": "abort", "keep": True}))
            raise

    def _choose(self, count: int) -> Shape:
        if self._shape != "auto":
            return Shape.parse(self._shape)
        limit = float(self._order["rate"] or DEFAULT_LINK.rate)
        link = replace(DEFAULT_LINK, rate=min(limit, DEFAULT_LINK.rate))
        return choose(max(count, 1), self._manifest["bytes"], link, self._manifest["block"])[0]

    def _tell(self, event: dict[str, Any]) -> None:
        self._call.tell({"transfer": self._label, **event})

    def _fail(self, node: str, error: StageError, partial: bool) -> None:
        if node in self._failed or node in self._ok:
            return
        self._failed.append(node)
        self._tell({"type": "node-failed", "node": node, "error": error.to_wire(), "partial": partial})

    # opening ----------------------------------------------------------------------------------------------

    async def _open(self, nodes: list[Node], credential: Secret) -> dict[str, tuple[str, int]]:
        """Start the movers; the endpoints of those that opened in time."""
        opening = [asyncio.create_task(self._open_one(node, credential)) for node in nodes]
        try:
            found = await asyncio.gather(*opening)
        except BaseException:
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            raise
        return {node.name: endpoint for node, endpoint in zip(nodes, found, strict=True) if endpoint is not None}

    async def _open_one(self, node: Node, credential: Secret) -> tuple[str, int] | None:
        self._opened[node.name] = node
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                event = await self._fleet.call(
                    node, self._label, tasks.open_mover, Secret(self._member), self._order, self._launch, credential
                )
        except TimeoutError:
            self._fail(node.name, TemporaryError(f"{node.name} did not open within {OPEN_SECONDS} s"), False)
            return None
        except StageError as error:
            self._fail(node.name, error, False)
            return None
        if event["event"] == "error":
            self._fail(node.name, self._source_error or from_wire(event["error"]), bool(event["partial"]))
            return None
        host, port = event["endpoint"]
        return str(host), int(port)

    # running ----------------------------------------------------------------------------------------------

    async def _run(self, endpoints: dict[str, tuple[str, int]]) -> None:
        plan = build(SOURCE, list(endpoints), self._choose(len(endpoints)))
        now = time.monotonic()
        for name in endpoints:
            self._heard[name] = now
            order = self._feeds(plan, name, endpoints)
            self._running[name] = asyncio.create_task(self._run_one(self._opened[name], order))
        watch = asyncio.create_task(self._watch())
        try:
            ended = await asyncio.gather(*self._running.values(), return_exceptions=True)
            for error in ended:
                if isinstance(error, Exception):  # not the cancelling of a node that was given up
                    raise error
        finally:
            for task in (watch, *self._running.values()):
                task.cancel()
            await asyncio.gather(watch, *self._running.values(), return_exceptions=True)

    def _feeds(self, plan: TreePlan, name: str, endpoints: dict[str, tuple[str, int]]) -> dict[str, Any]:
        def peer(who: str) -> list[Any]:
            return list(self._source) if who == SOURCE else [who, *endpoints[who]]

        feeds = [{"stripe": feed.stripe, "peers": [peer(p) for p in feed.peers]} for feed in plan.feeds[name]]
        return feeds_order(plan.stripes, feeds, self._source)

    async def _run_one(self, node: Node, order: dict[str, Any]) -> None:
        try:
            event = await self._fleet.call(node, self._label, tasks.run_mover, self._member.transfer, order, "done")
        except StageError as error:
            self._fail(node.name, error, True)
        else:
            if event["event"] == "error":
                self._fail(node.name, self._source_error or from_wire(event["error"]), bool(event["partial"]))
            elif node.name not in self._failed:
                self._ok.append(node.name)
                fields = ("bytes", "fetched", "reused", "skipped", "seconds", "digest")
                self._tell({"type": "node-done", "node": node.name, **{f: event[f] for f in fields}})

    def _on_event(self, node: str, event: dict[str, Any]) -> None:
        self._heard[node] = time.monotonic()
        if event["event"] == "progress":
            self._tell({"type": "progress", "node": node, "bytes": event["bytes"]})
        elif event["event"] == "note":
            self._tell({"type": "note", "node": node, "message": event["message"]})
        elif event["event"] == "complete" and not self._sealed:
            self._sealed = True  # by now the source has sent, and so hashed, nearly everything
            self._tell({"type": "seal"})

    async def _watch(self) -> None:
        """A mover that says nothing is not waited for."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for name, task in self._running.items():
                if not task.done() and now - self._heard[name] > SILENCE_SECONDS:
                    self._fail(name, Unreachable(f"{name} has been silent for {SILENCE_SECONDS} s"), True)
                    task.cancel()
                    await self._fleet.control(self._opened[name], self._member.transfer, {"op": "kill"})

    # the command's further lines ----------------------------------------------------------------------------

    async def _listen(self) -> None:
        """The command drives the source's mover: it brings the content digest, or word that the source failed."""
        while True:
            line = await self._call.receive()
            if line.get("op") == "root":
                self._root = str(line["digest"])
                await self._control({"op": "root", "digest": self._root})
            elif line.get("op") == "source-failed":
                self._source_error = from_wire(line["error"])
                await self._control({"op": "abort", "keep": isinstance(self._source_error, TemporaryError)})
            elif line.get("op") == "stop":
                why = from_wire(line["error"]) if "error" in line else Interrupted("the command was interrupted")
                self._source_error = why
                await self._control({"op": "abort", "keep": True})
            else:
                raise UsageError(f"a broadcast does not know {line.get('op')!r}")

    async def _control(self, order: dict[str, Any]) -> None:
        orders = [self._fleet.control(node, self._member.transfer, order) for node in self._opened.values()]
        await asyncio.gather(*orders, return_exceptions=True)
