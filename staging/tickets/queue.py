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
from collections import Counter, OrderedDict
from dataclasses import dataclass

from staging.mover.errors import UsageError
from staging.tickets.line import Line
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
        self._lines = {name: Line(limits.places(name), limits.per_user) for name in SIZE_CLASSES}
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
