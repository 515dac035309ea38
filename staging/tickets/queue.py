"""The ticket queue of one data server: who may copy now, who waits, and whose turn is next.

A pure state machine: `now` is in monotonic seconds, nothing does I/O. The caller feeds it what clients say,
calls `expire` at `next_deadline`, and after each call drains `granted`.

The rule, in each class by itself: a free place goes to the user with the fewest copies running there; among
equals, to the ticket asked first. A user at the per-user limit is passed over.

Nobody starves, provided that every copy ends (a silent one is purged). While a user's oldest ticket waits,
none of that user's later ones can start, so the copies the user has running only become fewer. When none is
left, only a ticket that was asked earlier can go before this one, and of those there are finitely many. Then
the user's next ticket is the oldest.

A position is the ticket's place in the order in which the rule would give out places if no running copy
ended: the k-th waiting ticket (k from 0) of a user with r running stands at level r + k, and the order is by
level, then by time of asking. Tickets of a user at the limit so stand behind those that can go ahead. A
position can also become worse, when another user's copy ends and so gives that user precedence.

Invariants:
- limit: in a class never more run than its limit, nor more of one user than the per-user limit;
- none lost: a ticket asked for waits, runs, or has ended and is counted once, under its end, by `ended`;
- one place: a ticket holds at most one place, and is granted at most once until it ends;
- FIFO: within a user and class, places are given in the order of asking;
- work conserving: no place is free while a ticket waits whose user is below the per-user limit;
- idempotent ask: asking again for a ticket that waits or runs changes nothing but its idle time;
- patience: a ticket is purged only after more than `Limits.idle` seconds without ask, poll or progress;
- honest position: those waiting in a class have the positions 1 to n, and none gets a place before the first.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from dataclasses import dataclass

from staging.mover.errors import UsageError
from staging.tickets.model import (
    SIZE_CLASSES,
    Answer,
    End,
    Ended,
    Limits,
    Outcome,
    Request,
    Row,
    SizeClass,
    check_bytes,
    ticket_id,
)


class _Line:
    """The order of one class, over users and sequence numbers (asked first = lower).

    A change costs a few binary searches and memory moves; a position one pass over the edges, and one over
    the users who wait where its level is not cached.
    """

    def __init__(self, places: int, per_user: int | None) -> None:
        self._places = places
        self._share = places if per_user is None else min(per_user, places)
        self._busy = 0
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, list[int]] = {}  # user -> sequence numbers, ascending, never empty
        self._turns: list[tuple[int, int, str]] = []  # (running, first waiting, user), sorted
        # A user with r running and n waiting has one ticket on each level from r up to r+n: +1 at the edge r,
        # -1 at the edge r+n. Users share edges, so there are few: distinct queue lengths take many tickets.
        self._edges: Counter[int] = Counter()
        self._levels: dict[int, list[int]] = {}  # cache: level -> its sequence numbers, ascending

    def _count(self, user: str, sign: int) -> None:
        """Enter a user's share in the order (sign 1), or take it out (-1) before it is changed."""
        queue = self._waiting.get(user)
        if not queue:
            return
        low = self._running[user]
        for level, step in ((low, sign), (low + len(queue), -sign)):
            self._edges[level] += step
            if not self._edges[level]:
                del self._edges[level]
        turn = (low, queue[0], user)
        if sign > 0:
            insort(self._turns, turn)
        else:
            del self._turns[bisect_left(self._turns, turn)]

    def _change(self, user: str, *, starts: int = 0, add: int | None = None, drop: int | None = None) -> None:
        self._count(user, -1)
        self._busy += starts
        self._running[user] += starts
        if not self._running[user]:
            del self._running[user]
        queue = self._waiting.setdefault(user, [])
        if add is not None:
            queue.append(add)
        if drop is not None:
            del queue[bisect_left(queue, drop)]
        if not queue:
            del self._waiting[user]
        self._count(user, 1)

    def add(self, user: str, seq: int) -> None:
        """A ticket begins to wait; `seq` is higher than any before."""
        self._change(user, add=seq)
        level = self._running[user] + len(self._waiting[user]) - 1
        if level in self._levels:
            self._levels[level].append(seq)

    def drop(self, user: str, seq: int) -> None:
        """A ticket no longer waits, and got no place."""
        self._change(user, drop=seq)
        self._levels.clear()

    def release(self, user: str) -> None:
        """A copy of this user no longer runs."""
        self._change(user, starts=-1)
        if user in self._waiting:
            self._levels.clear()

    def give(self) -> int | None:
        """Give a free place to the first in order: its sequence number, None without a place or a taker."""
        if self._busy >= self._places or not self._turns or self._turns[0][0] >= self._share:
            return None
        level, seq, user = self._turns[0]
        self._change(user, starts=1, drop=seq)
        if level in self._levels:  # the user's other tickets keep their levels: one less waits, one more runs
            self._levels[level].pop(0)
        return seq

    def position(self, user: str, seq: int) -> int:
        """Counts those on lower levels, those asked earlier on its own level, and itself."""
        level = self._running[user] + bisect_left(self._waiting[user], seq)
        if level not in self._levels:
            found = ((queue, level - self._running[name]) for name, queue in self._waiting.items())
            self._levels[level] = sorted(queue[k] for queue, k in found if 0 <= k < len(queue))
        below = sum((level - edge) * step for edge, step in self._edges.items() if edge < level)
        return below + bisect_left(self._levels[level], seq) + 1

    def order(self) -> list[int]:
        """Those waiting, first the one at position 1."""
        levels = (enumerate(queue, self._running[user]) for user, queue in self._waiting.items())
        return [seq for _, seq in sorted(itertools.chain.from_iterable(levels))]


@dataclass(slots=True)
class _Ticket:
    name: str
    request: Request
    size_class: SizeClass
    seq: int
    touched: float
    since: float
    running: bool = False
    done: int = 0


class TicketQueue:
    """The state machine; see the module's description for its rule and its invariants."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines = {name: _Line(limits.places(name), limits.per_user) for name in SIZE_CLASSES}
        self._tickets: OrderedDict[str, _Ticket] = OrderedDict()  # the longest idle first
        self._waiting: dict[int, _Ticket] = {}  # by sequence number
        self._seq = itertools.count()
        self._now = -math.inf
        self._granted: dict[str, None] = {}
        self._ends: Counter[tuple[SizeClass, End]] = Counter()
        self._bytes: Counter[tuple[SizeClass, End]] = Counter()

    def ask(self, request: Request, now: float) -> Answer:
        """Ask for a place; the ticket is `ticket_id(request)`."""
        name = ticket_id(request)
        ticket = self._touch(name, now)
        if ticket is None:
            ticket = _Ticket(name, request, self._limits.size_class(request), next(self._seq), now, now)
            self._tickets[name] = self._waiting[ticket.seq] = ticket
            self._lines[ticket.size_class].add(request.user, ticket.seq)
            self._fill(ticket.size_class)
        return self._answer(ticket)

    def poll(self, ticket: str, now: float) -> Answer:
        """Whether the ticket's turn has come."""
        return self._answer(self._touch(ticket, now))

    def progress(self, ticket: str, bytes_done: int, now: float) -> Answer:
        """A copy goes on. "wait" or "gone" tell its client that it has no place and must stop."""
        check_bytes(bytes_done)
        found = self._touch(ticket, now)
        if found is not None and found.running:
            found.done = bytes_done
        return self._answer(found)

    def done(self, ticket: str, outcome: Outcome, bytes_done: int, now: float) -> Answer:
        """A copy has ended: its place is free. "gone" if it had been given on already.

        Also ends a ticket that waits: a copy whose ticket was purged and asked for again may just finish.
        """
        check_bytes(bytes_done)
        if outcome not in ("ok", "failed"):
            raise UsageError(f"unknown outcome {outcome!r}", "report ok or failed")
        return self._close(ticket, outcome, bytes_done, now)

    def cancel(self, ticket: str, now: float) -> Answer:
        """End a ticket, waiting or running; "gone" if there is no such ticket."""
        return self._close(ticket, "cancelled", None, now)

    def expire(self, now: float) -> list[str]:
        """Purge the tickets that have been idle too long and give their places on; returns them."""
        self._advance(now)
        purged = []
        while (deadline := self.next_deadline()) is not None and now >= deadline:
            ticket = next(iter(self._tickets.values()))
            self._remove(ticket, "purged", ticket.done)
            purged.append(ticket.name)
        for size_class in SIZE_CLASSES:  # only now, so that no place goes to a ticket about to be purged
            self._fill(size_class)
        return purged

    def next_deadline(self) -> float | None:
        """The first moment at which `expire` has something to purge; None while there is no ticket."""
        if not self._tickets:
            return None
        return math.nextafter(next(iter(self._tickets.values())).touched + self._limits.idle, math.inf)

    def granted(self) -> list[str]:
        """The tickets that were given a place since the last call, and still have it."""
        granted = list(self._granted)
        self._granted.clear()
        return granted

    def ended(self) -> tuple[Ended, ...]:
        """The totals of all tickets that have ended, by class and end."""
        return tuple(Ended(*key, count, self._bytes[key]) for key, count in sorted(self._ends.items()))

    def snapshot(self) -> tuple[Row, ...]:
        """All tickets: small before large, running (as asked) before waiting (by position)."""
        places = {seq: k for line in self._lines.values() for k, seq in enumerate(line.order(), 1)}
        tickets = sorted(self._tickets.values(), key=lambda ticket: (places.get(ticket.seq, 0), ticket.seq))
        return tuple(
            Row(
                ticket=ticket.name,
                size_class=ticket.size_class,
                user=ticket.request.user,
                job=ticket.request.job,
                bytes=ticket.request.bytes,
                done=ticket.done,
                state="running" if ticket.running else "waiting",
                position=places.get(ticket.seq, 0),
                since=min(ticket.since, self._now),
            )
            for size_class in SIZE_CLASSES
            for ticket in tickets
            if ticket.size_class == size_class
        )

    def _advance(self, now: float) -> None:
        """Take note of the time. After a clock was set back, idle time counts on from the new time."""
        if now < self._now:
            for ticket in reversed(self._tickets.values()):
                if ticket.touched <= now:
                    break
                ticket.touched = now
        self._now = now

    def _touch(self, name: str, now: float) -> _Ticket | None:
        self._advance(now)
        ticket = self._tickets.get(name)
        if ticket is not None:
            ticket.touched = now
            self._tickets.move_to_end(name)
        return ticket

    def _answer(self, ticket: _Ticket | None) -> Answer:
        if ticket is None:
            return Answer("gone")
        if ticket.running:
            return Answer("ok")
        position = self._lines[ticket.size_class].position(ticket.request.user, ticket.seq)
        # Those in front ask every few seconds; nobody sleeps so long that one lost answer costs the ticket.
        return Answer("wait", position, min(float(position), self._limits.idle / 4))

    def _fill(self, size_class: SizeClass) -> None:
        while (seq := self._lines[size_class].give()) is not None:
            ticket = self._waiting.pop(seq)
            ticket.running = True
            ticket.since = self._now
            self._granted[ticket.name] = None

    def _close(self, name: str, end: End, bytes_done: int | None, now: float) -> Answer:
        self._advance(now)
        ticket = self._tickets.get(name)
        if ticket is None:
            return Answer("gone")
        self._remove(ticket, end, ticket.done if bytes_done is None else bytes_done)
        self._fill(ticket.size_class)
        return Answer("ok")

    def _remove(self, ticket: _Ticket, end: End, bytes_done: int) -> None:
        line = self._lines[ticket.size_class]
        if ticket.running:
            line.release(ticket.request.user)
        else:
            line.drop(ticket.request.user, ticket.seq)
            del self._waiting[ticket.seq]
        del self._tickets[ticket.name]
        self._granted.pop(ticket.name, None)
        self._ends[ticket.size_class, end] += 1
        self._bytes[ticket.size_class, end] += bytes_done
