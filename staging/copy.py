"""The command's part of a copy: `push` from this host to nodes, `pull` from one node to this host.

Both drive a mover of this host and one request to the head, and hand every event to `tell` (docs/events.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cluster.layout import Layout
from cluster.line import Line
from cluster.run import umask
from staging.local_mover import LocalMover
from staging.mover.errors import Interrupted, LimitError, StageError
from staging.mover.manifest import paced_block
from staging.orders import Membership, SinkOrder, SourceOrder, feeds_order
from staging.planning import decide, host_name, link_of

STOP_SECONDS = 1.5  # what ^C allows the nodes for saying what is left of their replicas
LATE_SECONDS = 5.0  # what the end of the time does
ALIVE_SECONDS = 10.0

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Place:
    """Where the command is: its cluster, and the address under which the nodes reach this host."""

    layout: Layout
    host: str


@dataclass(frozen=True)
class Push:
    """Sources on this host, a destination on every one of the nodes.

    `shape`: "auto" or as `Shape.parse` takes it. `block` in bytes, 0: by the size. `checksum`: files that are there are
    compared by their bytes; else, with `preserve`, those of the source's size and time are left alone. `rate`: what one
    host may send, bytes/s. `timeout`: seconds for all of it. Both 0 for no limit. `topology`: the text of a topology
    file. `link`: what a node's link carries, in bytes/s, 0 for the default.
    """

    label: str
    what: str
    sources: tuple[str, ...]
    dest: str
    nodes: tuple[str, ...]
    contents: bool = False
    into: str = "auto"
    parents: bool = False
    preserve: bool = True
    shape: str = "auto"
    block: int = 0
    checksum: bool = True
    rate: int = 0
    timeout: float = 0
    topology: str = ""
    link: float = 0
    direction: str = "copy"


@dataclass(frozen=True)
class Pull:
    """Sources on one node, a destination on this host. `ticket`: wait for a place in the data server's queue."""

    label: str
    node: str
    sources: tuple[str, ...]
    dest: str
    contents: bool = False
    into: str = "auto"
    ticket: bool = True
    job: str = ""


async def push(place: Place, order: Push, tell: Tell) -> None:
    """Copy to all nodes. What fails on a node is told by events.

    Raises for a source that cannot be read at all, and LimitError where the time is over before anything has begun.
    """
    link = link_of(place.host, order.link)
    shape, block = decide(order.sources, order.nodes, order.shape, order.block, link, order.topology)
    if order.rate and not order.block:
        block = min(block, paced_block(order.rate))
    order = replace(order, shape=shape, block=block)
    member = Membership()
    limit = asyncio.get_running_loop().time() + order.timeout if order.timeout else None
    late = LimitError(f"not done within the {order.timeout:g} s of the time limit", "allow more, or see what is slow")
    mover = await LocalMover.start(member, place.host)
    line: Line | None = None
    following: asyncio.Task[None] | None = None
    try:
        source = SourceOrder(order.sources, order.contents, order.block, len(order.nodes), order.rate)
        try:
            async with asyncio.timeout_at(limit):
                opened = await mover.open(source.to_order())
        except TimeoutError:
            raise late from None
        story = _Story(order, tell, opened["skipped"])
        line = await Line.open(place.layout, _broadcast(order, member, opened))
        following = asyncio.create_task(_follow_source(mover, line))
        try:
            async with asyncio.timeout_at(limit):
                await _relay(line, mover, story.tell)
        except TimeoutError:
            await _stop(line, mover, story, {"op": "stop", "error": late.to_wire()}, LATE_SECONDS)
            story.fail_the_rest(late)
        except asyncio.CancelledError:
            await _stop(line, mover, story, {"op": "stop"}, STOP_SECONDS)
            raise
    finally:
        await _hang_up(following, line)
        await mover.end({"op": "finish"})


async def _stop(line: Line, mover: LocalMover, story: _Story, order: dict[str, Any], seconds: float) -> None:
    """Have the broadcast end, and wait so long for word of what is left of it."""
    line.say(order)
    with contextlib.suppress(TimeoutError, StageError):
        async with asyncio.timeout(seconds):
            await _relay(line, mover, story.tell)


class _Story:
    """Passes a broadcast's events on, notes about the source after its start, and knows which nodes are still owed."""

    def __init__(self, order: Push, tell: Tell, skipped: list[str]) -> None:
        self._label = order.label
        self._tell = tell
        self._skipped = skipped
        self._owed: list[str] | None = None

    def tell(self, event: dict[str, Any]) -> None:
        self._tell(event)
        if event["type"] == "transfer-start":
            self._owed = list(event["nodes"])
            for path in self._skipped:
                text = f"{path} is no file, directory or link; left out"
                self._tell({"type": "note", "transfer": self._label, "node": "", "message": text})
        elif event["type"] in ("node-done", "node-failed") and self._owed and event["node"] in self._owed:
            self._owed.remove(event["node"])

    def fail_the_rest(self, error: StageError) -> None:
        """Tell that the nodes of which no end was told have failed; raises the error where nothing was told at all."""
        if self._owed is None:
            raise error
        for node in self._owed:
            failed = {"type": "node-failed", "transfer": self._label, "node": node, "partial": False}
            self._tell({**failed, "error": error.to_wire()})


def _broadcast(order: Push, member: Membership, opened: dict[str, Any]) -> dict[str, Any]:
    return {
        "op": "broadcast",
        "transfer": member.transfer,
        "key": member.key,
        "source": opened["endpoint"],
        "manifest": opened["manifest"],
        "umask": umask(),
        "nodes": list(order.nodes),
        "label": order.label,
        "what": order.what,
        "direction": order.direction,
        "dest": order.dest,
        "into": order.into,
        "parents": order.parents,
        "preserve": order.preserve,
        "shape": order.shape,
        "checksum": order.checksum,
        "rate": order.rate,
        "topology": order.topology,
        "link": order.link,
        "host": host_name(),
    }


async def _relay(line: Line, mover: LocalMover, tell: Tell) -> None:
    async for event in line:
        if event["type"] == "seal":
            mover.send({"op": "seal"})
        else:
            tell(event)


async def _follow_source(mover: LocalMover, line: Line) -> None:
    try:
        while True:
            event = await mover.next()
            if event["event"] == "root":
                line.say({"op": "root", "digest": event["digest"]})
    except StageError as error:
        line.say({"op": "source-failed", "error": error.to_wire()})


async def _hang_up(task: asyncio.Task[None] | None, *lines: Line | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for line in lines:
        if line is not None:
            await line.close()


async def pull(place: Place, order: Pull, tell: Tell) -> dict[str, Any]:
    """Copy from one node; its `node-done` event. Raises the StageError that ended it, `partial` set on it."""
    member = Membership()
    line = await Line.open(
        place.layout,
        {
            "op": "publish",
            "label": order.label,
            "transfer": member.transfer,
            "key": member.key,
            "node": order.node,
            "sources": list(order.sources),
            "contents": order.contents,
        },
    )
    mover: LocalMover | None = None
    queue: _Turn | None = None
    try:
        opened = await anext(line)
        if order.ticket:
            queue = await _Turn.take(place, order, opened["manifest"], tell)
        mover = await LocalMover.start(member, place.host)
        sink = SinkOrder(order.dest, opened["manifest"], order.into, parents=True)
        await mover.open(sink.to_order())
        feed = [order.node, *opened["endpoint"]]
        mover.send(feeds_order(1, [{"stripe": 0, "peers": [feed]}], feed))
        done = await _fetch(line, mover, order, opened["manifest"]["bytes"], queue, tell)
        line.say({"op": "finish"})
        async for _ in line:
            continue
        if queue is not None:
            await queue.done("ok", done["bytes"])
        fields = ("bytes", "fetched", "reused", "skipped", "seconds", "digest")
        event = {
            "type": "node-done",
            "transfer": order.label,
            "node": order.node,
            **{f: done[f] for f in fields},
            "files": opened["manifest"]["files"],
        }
    except BaseException as error:
        if mover is not None:
            partial = await mover.end({"op": "abort", "keep": True})
            if isinstance(error, StageError):
                error.partial = error.partial or partial
            mover = None
        raise
    else:
        return event
    finally:
        await _hang_up(None, line, queue.line if queue is not None else None)
        if mover is not None:
            await mover.end({"op": "finish"})


async def _fetch(
    line: Line, mover: LocalMover, order: Pull, total: int, queue: _Turn | None, tell: Tell
) -> dict[str, Any]:
    """Follow the local sink and the far source at once until the files have their names."""
    near = asyncio.ensure_future(mover.next())
    far = asyncio.ensure_future(anext(line))
    try:
        while True:
            await asyncio.wait({near, far}, return_when=asyncio.FIRST_COMPLETED)
            if far.done():
                event = far.result()
                if event["type"] == "root":
                    mover.send({"op": "root", "digest": event["digest"]})
                else:
                    tell({"transfer": order.label, **event})
                far = asyncio.ensure_future(anext(line))
            if near.done():
                event = near.result()
                if event["event"] == "done":
                    return event
                if event["event"] == "complete":
                    line.say({"op": "seal"})
                elif event["event"] == "progress":
                    here = {"bytes": event["bytes"], "total": total}
                    tell({"type": "progress", "transfer": order.label, "node": order.node, **here})
                    if queue is not None:
                        queue.alive(event["bytes"])
                elif event["event"] == "note":
                    tell({"type": "note", "transfer": order.label, "node": order.node, "message": event["message"]})
                near = asyncio.ensure_future(mover.next())
    finally:
        for task in (near, far):
            task.cancel()
        await asyncio.gather(near, far, return_exceptions=True)


class _Turn:
    """A place in the data server's queue."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._loop = asyncio.get_running_loop()
        self._said = self._loop.time()

    @classmethod
    async def take(cls, place: Place, order: Pull, manifest: dict[str, Any], tell: Tell) -> _Turn:
        """Wait for the turn, telling the position on the way."""
        request = {
            "direction": "put",
            "paths": [f"{order.node}:{source}" for source in order.sources],
            "bytes": manifest["bytes"],
            "recursive": manifest["directory"],
            "job": order.job,
        }
        line = await Line.open(place.layout, {"op": "ticket", "request": request})
        try:
            async for event in line:
                tell({**event, "transfer": order.label, "node": order.node})
                if event["state"] == "ok":
                    return cls(line)
        except BaseException:
            await line.close()
            raise
        raise Interrupted("the ticket queue ended")

    def alive(self, here: int) -> None:
        """Say that the copy goes on, now and then."""
        if self._loop.time() - self._said >= ALIVE_SECONDS:
            self._said = self._loop.time()
            self.line.say({"op": "alive", "bytes": here})

    async def done(self, outcome: str, here: int) -> None:
        """Give the place back, and wait until the queue has taken note."""
        self.line.say({"op": "done", "outcome": outcome, "bytes": here})
        async for _ in self.line:
            continue
