"""A broadcast on a virtual clock: every block, every request, shared links, slow nodes and dead ones. Pure.

It carries out a plan as the movers do (`staging/mover/fetch.py`, `serve.py`) and with their own block map: a sink asks
each feed for the next missing blocks of its stripe, a window of them at a time; the feed answers in order, a block once
it has the whole of it; what a stripe's feed cannot give is taken from others; a dead feed's child waits until it
notices, frees what it had asked for, and goes to the next of its list, and so does a sink that has got nothing at all
for STALL_SECONDS.

An uplink is shared evenly by the blocks that leave through it, a downlink by those that arrive: a block moves at the
smaller of its two shares. A mover's work is a delay after each block, and a bound on its uplink (`cost.py`).

It moves some ten thousands of blocks a second. For plans that are larger and have no dead node, `arrivals.py` gives
the same times without moving blocks.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from staging.mover.blockmap import BlockMap
from staging.mover.fetch import IDLE_SECONDS, IN_FLIGHT_BYTES, STALL_SECONDS
from staging.plan.arrivals import NO_RATES
from staging.plan.cost import DEFAULT_LINK, Link, round_times
from staging.plan.tree import TreePlan

NO_DEATHS: Mapping[str, float] = {}
DETECT_SECONDS = 5.0  # of silence, as for a host that vanished; a mover that is killed is noticed at once


def simulate(
    plan: TreePlan,
    blocks: int,
    block_size: int,
    link: Link = DEFAULT_LINK,
    rates: Mapping[str, float] = NO_RATES,
    deaths: Mapping[str, float] = NO_DEATHS,
    detect: float = DETECT_SECONDS,
) -> dict[str, float]:
    """Seconds until each sink has all blocks; sinks that die before that are left out.

    rates: bytes/s of the hosts that are not as `link` says. deaths: when a sink vanishes. detect: seconds until its
    children notice.
    """
    return _Simulation(plan, blocks, block_size, link, rates, deaths, detect).run()


@dataclass(eq=False)
class _Stream:
    """A sink's connection to one of its feeds."""

    order: int
    number: int
    child: _Host
    peers: tuple[_Host, ...]
    at: int = 0
    asked: list[int] = field(default_factory=list)  # have reached the parent, in order
    owed: int = 0
    sending: int | None = None  # the block under way
    left: float = 0.0  # bytes of it
    rate: float = 0.0
    since: float = 0.0
    turn: int = 0  # events of an earlier turn are void
    idle: float = 0.0

    @property
    def parent(self) -> _Host:
        return self.peers[self.at % len(self.peers)]


@dataclass(eq=False)
class _Host:
    name: str
    up: float
    down: float
    delay: float  # from a block having left to its being complete at a child
    map: BlockMap | None  # None: the source
    streams: list[_Stream] = field(default_factory=list)  # to its feeds
    served: list[_Stream] = field(default_factory=list)  # from its children
    sending: set[_Stream] = field(default_factory=set)
    getting: set[_Stream] = field(default_factory=set)
    fresh: float = 0.0  # when a block last came
    dead: bool = False
    done: float | None = None

    def has(self, block: int) -> bool:
        return self.map is None or block in self.map


class _Simulation:
    def __init__(
        self,
        plan: TreePlan,
        blocks: int,
        size: int,
        link: Link,
        rates: Mapping[str, float],
        deaths: Mapping[str, float],
        detect: float,
    ) -> None:
        self._link, self._size, self._detect = link, size, detect
        self._window = max(2, min(16, IN_FLIGHT_BYTES // size))
        self._now = 0.0
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        busy = {name: sum(map(len, plan.children(name).values())) for name in (plan.source, *plan.feeds)}
        self._setup = (plan.stripes + max(busy.values())) * link.setup
        if link.cores:
            self._setup = max(self._setup, len(plan.feeds) * plan.stripes * link.setup / link.cores)
        self._hosts: dict[str, _Host] = {}
        for name, copies in busy.items():
            rate = rates.get(name, link.rate)
            wire = copies * size / rate
            hop, period = round_times(wire, plan.stripes, copies, len(plan.feeds), size, link)
            up = copies * size / period if copies else rate
            owned = None if name == plan.source else BlockMap(blocks, plan.stripes)
            self._hosts[name] = _Host(name, up, rate, hop - period, owned)
        for name, feeds in plan.feeds.items():
            host = self._hosts[name]
            for feed in feeds:
                stream = _Stream(next(self._order), feed.stripe, host, tuple(self._hosts[peer] for peer in feed.peers))
                host.streams.append(stream)
                stream.parent.served.append(stream)
                self._at(self._setup, lambda stream=stream: self._ask(stream))  # type: ignore[misc]
                self._at(STALL_SECONDS, lambda stream=stream: self._watch(stream))  # type: ignore[misc]
        for name, when in deaths.items():
            self._at(when, lambda host=self._hosts[name]: self._die(host))  # type: ignore[misc]

    def run(self) -> dict[str, float]:
        while self._events:
            self._now, _, act = heapq.heappop(self._events)
            act()
        return {name: host.done for name, host in self._hosts.items() if host.done is not None}

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), act))

    # asking -------------------------------------------------------------------------------------------------

    def _ask(self, stream: _Stream, eager: bool = False) -> None:
        """Claim blocks up to the window; with none to claim, look again after a while for others' blocks."""
        owned = stream.child.map
        assert owned is not None
        if stream.child.dead or owned.complete:
            return
        asked: list[int] = []
        while stream.owed + len(asked) < self._window:
            block = owned.next(stream.number, stream.number, duplicate=eager and not stream.owed)
            if block is None:
                break
            asked.append(block)
        turn = stream.turn
        if asked:
            stream.owed += len(asked)
            self._at(self._now + self._link.latency, lambda: self._arrive(stream, turn, asked))
        elif not stream.owed:
            stream.idle = idle = self._now
            self._at(self._now + IDLE_SECONDS, lambda: self._look(stream, turn, idle))

    def _look(self, stream: _Stream, turn: int, idle: float) -> None:
        if stream.turn == turn and stream.idle == idle and not stream.owed:
            self._ask(stream, eager=True)

    def _arrive(self, stream: _Stream, turn: int, asked: list[int]) -> None:
        if stream.turn == turn:
            stream.asked += asked
            self._serve(stream)

    # sending ------------------------------------------------------------------------------------------------

    def _serve(self, stream: _Stream) -> None:
        """Begin to send the first block that was asked for and is there."""
        parent = stream.parent
        if stream.sending is not None or parent.dead:
            return
        block = next((b for b in stream.asked if parent.has(b)), None)
        if block is None:
            return
        stream.asked.remove(block)
        stream.sending, stream.left, stream.rate, stream.since = block, float(self._size), 0.0, self._now
        parent.sending.add(stream)
        stream.child.getting.add(stream)
        self._share(parent, stream.child)

    def _share(self, *hosts: _Host) -> None:
        """Links have changed hands: new rates for the blocks on them."""
        for stream in sorted({s for host in hosts for s in host.sending | host.getting}, key=lambda s: s.order):
            parent, child = stream.parent, stream.child
            rate = min(parent.up / len(parent.sending), child.down / len(child.getting))
            if rate != stream.rate:
                stream.left -= stream.rate * (self._now - stream.since)
                stream.rate, stream.since = rate, self._now
                turn = stream.turn
                self._at(self._now + stream.left / rate, lambda s=stream, r=rate, t=turn: self._sent(s, r, t))  # type: ignore[misc]

    def _sent(self, stream: _Stream, rate: float, turn: int) -> None:
        block = stream.sending
        if stream.turn != turn or block is None or rate != stream.rate:
            return
        if stream.left - rate * (self._now - stream.since) > 1e-6 * self._size:
            return  # of an earlier time at the same rate
        parent = stream.parent
        self._drop(stream)
        self._at(self._now + parent.delay, lambda: self._complete(stream, turn, block))
        self._serve(stream)
        self._share(parent, stream.child)

    def _drop(self, stream: _Stream) -> None:
        stream.parent.sending.discard(stream)
        stream.child.getting.discard(stream)
        stream.sending = None

    def _complete(self, stream: _Stream, turn: int, block: int) -> None:
        child = stream.child
        assert child.map is not None
        if child.dead:
            return
        if stream.turn == turn:
            stream.owed -= 1
        if child.map.add(block):
            child.fresh = self._now
            for other in child.served:
                self._serve(other)
        if child.map.complete:
            if child.done is None:
                child.done = self._now
        elif stream.turn == turn:
            self._ask(stream)

    # dying --------------------------------------------------------------------------------------------------

    def _die(self, host: _Host) -> None:
        if host.done is not None:
            return
        host.dead = True
        touched = {host}
        for stream in host.streams:
            touched.add(stream.parent)
            self._hang_up(stream)
        for stream in [*host.served]:
            touched.add(stream.child)
            self._hang_up(stream)
            self._at(self._now + self._detect, lambda stream=stream: self._turn_away(stream))  # type: ignore[misc]
        self._share(*touched)

    def _watch(self, stream: _Stream) -> None:
        """A feed that lives but has nothing for a sink that gets nothing else either is left."""
        child, parent = stream.child, stream.parent
        if child.dead or child.map is None or child.map.complete:
            return
        stale = self._now - child.fresh >= STALL_SECONDS
        if stale and stream.owed and not parent.dead and parent.map is not None:
            self._hang_up(stream)
            self._share(parent, child)
            stream.at += 1
            self._turn_away(stream)
        self._at((self._now if stale else child.fresh) + STALL_SECONDS, lambda: self._watch(stream))

    def _hang_up(self, stream: _Stream) -> None:
        """What was asked for or is under way on this connection will not come."""
        stream.turn += 1
        self._drop(stream)
        stream.parent.served.remove(stream)

    def _turn_away(self, stream: _Stream) -> None:
        """The end of a feed is noticed: what it owed is free, and the next of the list is asked."""
        child = stream.child
        if child.dead or child.map is None:
            return
        child.map.release(stream.number)
        stream.asked, stream.owed = [], 0
        while stream.parent.dead:
            stream.at += 1
        stream.parent.served.append(stream)
        turn = stream.turn
        self._at(self._now + self._link.setup, lambda: self._ask(stream) if stream.turn == turn else None)
        for other in child.streams:
            if other is not stream and not other.parent.dead:
                self._ask(other)
