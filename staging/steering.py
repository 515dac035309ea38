"""The tree of a running broadcast, as the orders that its nodes get. Sans-IO: names, bytes and `now` in, orders out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from staging.orders import feeds_order
from staging.plan.course import Course, Feeds, Plan
from staging.plan.pace import Pace
from staging.planning import SOURCE


class Steering:
    """Owner of the endpoints and of the tree. Its changes return the names of the nodes to be told: see `order`.

    source: host and port of the source's mover. total: bytes of the source, in blocks of `block`. every: seconds
    between two progress reports of a node. known: bytes/s that a node has got in an earlier broadcast, or 0.
    """

    def __init__(self, source: Sequence[Any], total: int, block: int, every: float, known: float = 0.0) -> None:
        self._source = [SOURCE, *source]
        self._total = total
        self._block = block
        self._every = every
        self._known = known
        self._course: Course | None = None
        self._turn = 0
        self._complete: set[str] = set()
        self.endpoints: dict[str, tuple[str, int]] = {}

    @property
    def started(self) -> bool:
        return self._course is not None

    def start(self, names: Sequence[str], plan: Plan, now: float) -> None:
        """Plan for these nodes, whose endpoints are known."""
        self._course = Course(names, plan)
        self._pace = Pace(self._total, self._block, self._every, now, self._known)

    def join(self, name: str, late: bool = True) -> list[str]:
        """A node is about to run: it is in the plan, or comes now. A late one, or one that came back, feeds nobody."""
        assert self._course is not None
        if name in self._course.feeds:
            return []
        return self._turned(self._course.join(name) if late else self._course.grow(name))

    def leave(self, name: str) -> list[str]:
        """A node is gone, or has failed."""
        self.endpoints.pop(name, None)
        if self._course is None or name not in self._course.feeds:
            return []
        return self._turned(self._course.remove(name))

    def heard(self, name: str, here: int, now: float) -> None:
        """A node has `here` bytes."""
        if self._course is not None:
            self._pace.heard(name, here, now)

    def completed(self, name: str) -> None:
        """A node has everything and needs no feed any more."""
        self._complete.add(name)

    def adjust(self, now: float) -> tuple[str | None, list[str]]:
        """The node that was found to hold others up, and whom the change concerns."""
        assert self._course is not None
        parents = {n: self._course.parents(n) for n in self._course.feeds if n not in self._complete}
        slow = self._pace.cause(parents, now)
        changed = self._turned(self._course.demote(slow)) if slow is not None else []
        return (slow if changed and not self._pace.trial else None), changed

    def best_rate(self) -> float:
        """Bytes/s that a node has got, 0 where it went too fast to tell."""
        return self._pace.best if self._course is not None else 0.0

    def order(self, op: str, name: str) -> dict[str, Any]:
        """The order `run` or `feeds` for a node: its parents and whom to turn to when they die."""
        assert self._course is not None
        found = self._course.feeds[name]
        feeds = [{"stripe": feed.stripe, "peers": [self._peer(p) for p in feed.peers]} for feed in found]
        return {**feeds_order(len(feeds), feeds, self._source), "op": op, "turn": self._turn, "every": self._every}

    def _peer(self, name: str) -> list[Any]:
        return self._source if name == SOURCE else [name, *self.endpoints[name]]

    def _turned(self, changed: Feeds) -> list[str]:
        self._turn += 1
        return [name for name in changed if name not in self._complete]
