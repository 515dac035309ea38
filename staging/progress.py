"""Where every transfer stands: a pure model of the events of docs/events.md.

Feed it events with the time at which each came; ask it for frozen snapshots. It holds no clock and does no I/O.
Sums over the nodes of a transfer leave failed nodes out, so that a transfer with a dead node still
reaches 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Event = Mapping[str, Any]

TIME_CONSTANT = 3.0  # seconds; what came longer ago than this has lost 63 % of its weight


class State(StrEnum):
    """What a node of a transfer does."""

    WAITING = "waiting"
    QUEUED = "queued"
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"


class Rate:
    """The growth of a byte count, per second, as an exponentially weighted moving average.

    For samples at irregular times each has the weight 1 - exp(-dt / time constant). Dividing by the sum of
    the weights so far (the correction of Kingma and Ba, "Adam", 2015) makes the first seconds unbiased.
    The first count is the starting point, not growth: a resumed replica begins with many bytes.
    """

    def __init__(self) -> None:
        self._count = 0
        self._last: float | None = None
        self._mean = 0.0
        self._weight = 0.0

    def update(self, count: int, now: float) -> None:
        """Note that the count is `count` at `now` (seconds)."""
        if self._last is None or now < self._last:  # the first sample, or a clock that was set back
            self._count, self._last = count, now
            return
        dt = now - self._last
        if dt <= 0:  # the growth is counted with the next sample that has a later time
            return
        share = -math.expm1(-dt / TIME_CONSTANT)
        self._mean += share * (max(0, count - self._count) / dt - self._mean)
        self._weight += share * (1 - self._weight)
        self._count, self._last = count, now

    def at(self, now: float) -> float:
        """Bytes per second. Silence for longer than the time constant makes it fall towards 0."""
        if self._last is None or self._weight <= 0:
            return 0.0
        silence = max(0.0, now - self._last - TIME_CONSTANT)
        return self._mean / self._weight * math.exp(-silence / TIME_CONSTANT)


@dataclass(frozen=True, slots=True)
class Amount:
    """How far something has come: bytes there, bytes in all (None: not known), bytes per second."""

    bytes: int
    total: int | None
    rate: float

    @property
    def fraction(self) -> float | None:
        """0 to 1; None while the total is not known."""
        if self.total is None:
            return None
        return min(1.0, self.bytes / self.total) if self.total else 1.0

    @property
    def eta(self) -> float | None:
        """Seconds to the end at this rate; None when nothing can be said."""
        if self.total is None:
            return None
        if self.bytes >= self.total:
            return 0.0
        # Below a byte an hour "stalled" is the truth, and a tiny rate must not make eta overflow.
        return (self.total - self.bytes) / self.rate if self.rate > 1 / 3600 else None


@dataclass(frozen=True, slots=True)
class NodeProgress(Amount):
    """One node of one transfer. `rate` is the present one, or the average once the node is done."""

    node: str
    state: State
    position: int  # in the ticket queue, while queued
    fetched: int  # bytes that came over the wire, once done


@dataclass(frozen=True, slots=True)
class TransferProgress(Amount):
    """One transfer; bytes, total and rate are sums over its nodes that have not failed."""

    transfer: str
    what: str
    direction: str
    nodes: tuple[NodeProgress, ...]


@dataclass(frozen=True, slots=True)
class Snapshot(Amount):
    """The transfers under way, in the order in which they started; bytes, total and rate are their sums."""

    transfers: tuple[TransferProgress, ...]


@dataclass(slots=True)
class _Node:
    total: int | None
    state: State = State.WAITING
    bytes: int = 0
    position: int = 0
    fetched: int = 0
    average: float = 0.0
    rate: Rate = field(default_factory=Rate)

    def update(self, event: Event, now: float) -> None:
        kind = event["type"]
        if kind == "node-done":
            self.state = State.DONE
            self.bytes = self.total = event["bytes"]
            self.fetched = event["fetched"]
            self.average = self.fetched / event["seconds"] if event["seconds"] > 0 else 0.0
        elif kind == "node-failed":
            self.state = State.FAILED
        elif self.state in (State.DONE, State.FAILED):
            return  # reports that were still under way
        elif kind == "progress":
            if event["bytes"] != self.bytes:  # else it is only a sign of life, perhaps of a queued node
                self.state = State.MOVING
            self.bytes = event["bytes"]
            self.total = event.get("total", self.total)
            self.rate.update(self.bytes, now)
        elif kind == "ticket":
            self.state = State.QUEUED if event["state"] == "wait" else State.MOVING
            self.position = event["position"]

    def snapshot(self, name: str, now: float) -> NodeProgress:
        rate = {State.MOVING: self.rate.at(now), State.DONE: self.average}.get(self.state, 0.0)
        return NodeProgress(self.bytes, self.total, rate, name, self.state, self.position, self.fetched)


class _Transfer:
    def __init__(self, event: Event) -> None:
        self._id, self._what, self._direction = event["transfer"], event["what"], event["direction"]
        # Of an output the figure is of all nodes together, and 0 means not known yet.
        out = self._direction == "out"
        size = None if out and not event["bytes"] else event["bytes"]
        self._all = size if out else None
        each = None if out and len(event["nodes"]) != 1 else size
        self.nodes = {name: _Node(each) for name in event["nodes"]}
        self.ended = False

    def end(self, event: Event) -> None:
        self.ended = True
        for state, names in ((State.DONE, event["ok"]), (State.FAILED, event["failed"])):
            for name in names:
                if name in self.nodes:
                    self.nodes[name].state = state

    def snapshot(self, now: float) -> TransferProgress:
        nodes = tuple(node.snapshot(name, now) for name, node in self.nodes.items())
        alive = [node for node in nodes if node.state is not State.FAILED]
        total = _sum_known(node.total for node in alive)
        if total is None and len(alive) == len(nodes):
            total = self._all
        there, rate = sum(n.bytes for n in alive), sum(n.rate for n in alive if n.state is State.MOVING)
        return TransferProgress(there, total, rate, self._id, self._what, self._direction, nodes)


class Progress:
    """The state of all transfers. Events of unknown types, transfers or nodes are ignored."""

    def __init__(self) -> None:
        self._transfers: dict[str, _Transfer] = {}

    def update(self, event: Event, now: float) -> None:
        """Take in one event that came at `now` (seconds; any clock, the same for all calls)."""
        if event["type"] == "transfer-start":
            self._transfers[event["transfer"]] = _Transfer(event)
        transfer = self._transfers.get(event.get("transfer", ""))
        if transfer is None:
            return
        if event["type"] == "transfer-end":
            transfer.end(event)
        elif event.get("node") in transfer.nodes:
            transfer.nodes[event["node"]].update(event, now)

    def transfer(self, transfer: str, now: float) -> TransferProgress | None:
        """One transfer, ended or not; None if it never started."""
        found = self._transfers.get(transfer)
        return found.snapshot(now) if found else None

    def snapshot(self, now: float) -> Snapshot:
        """All transfers that have started and not ended."""
        active = tuple(t.snapshot(now) for t in self._transfers.values() if not t.ended)
        total = _sum_known(t.total for t in active)
        return Snapshot(sum(t.bytes for t in active), total, sum(t.rate for t in active), active)


def _sum_known(totals: Iterable[int | None]) -> int | None:
    known = 0
    for total in totals:
        if total is None:
            return None
        known += total
    return known
