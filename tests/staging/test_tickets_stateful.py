"""The ticket queue's invariants over random histories, against a plain model of its rule.

Each invariant of `staging.tickets.queue` is checked under its name there. The model keeps its own books and
finds whose turn it is by looking through all that wait.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from staging.tickets.model import SIZE_CLASSES, Answer, End, Limits, Outcome, Request, Row, SizeClass, ticket_id
from staging.tickets.queue import TicketQueue

IDLE = 120.0
users = st.sampled_from(["ann", "bob", "cat", "dan"])
Want = tuple[str, int, int | None]
wants = st.tuples(users, st.integers(0, 5), st.sampled_from([1, 100, None]))
limit_sets = st.builds(
    Limits,
    small=st.integers(1, 3),
    large=st.integers(1, 2),
    threshold=st.just(100),
    idle=st.just(IDLE),
    per_user=st.none() | st.integers(1, 2),
)


@dataclass
class Known:
    """The model's entry for a ticket that has not ended."""

    request: Request
    size_class: SizeClass
    number: int
    silent_since: float
    running: bool = False
    done: int = 0


def next_in_turn(waiting: list[Known], running: Counter[str], free: int, limits: Limits) -> Known | None:
    """The rule, told plainly: fewest running of the user first, then the first to ask."""
    able = [k for k in waiting if limits.per_user is None or running[k.request.user] < limits.per_user]
    if free < 1 or not able:
        return None
    return min(able, key=lambda known: (running[known.request.user], known.number))


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.asked = 0
        self.live: dict[str, Known] = {}
        self.ends: Counter[tuple[SizeClass, End]] = Counter()
        self.end_bytes: Counter[tuple[SizeClass, End]] = Counter()
        self.seen: list[str] = []

    @initialize(limits=limit_sets, crowd=st.lists(wants, min_size=3))
    def start(self, limits: Limits, crowd: list[Want]) -> None:
        self.limits = limits
        self.queue = TicketQueue(limits)
        self.ask(crowd)

    # What the model knows

    def members(self, size_class: SizeClass, *, running: bool) -> list[Known]:
        return [k for k in self.live.values() if k.size_class == size_class and k.running == running]

    def load(self, size_class: SizeClass) -> Counter[str]:
        return Counter(known.request.user for known in self.members(size_class, running=True))

    def spoke(self, ticket: str) -> None:
        if ticket in self.live:
            self.live[ticket].silent_since = self.now

    def rows(self, size_class: SizeClass, state: str) -> list[Row]:
        return [r for r in self.queue.snapshot() if r.size_class == size_class and r.state == state]

    def settle(self, *ends: tuple[str, End, int]) -> None:
        """Carry the ends over to the model, and the grants that must follow: they must be the queue's."""
        for ticket, end, count in ends:
            key = (self.live.pop(ticket).size_class, end)
            self.ends[key] += 1
            self.end_bytes[key] += count
        expected = []
        for size_class in SIZE_CLASSES:
            while True:
                free = self.limits.places(size_class) - len(self.members(size_class, running=True))
                waiting = self.members(size_class, running=False)
                turn = next_in_turn(waiting, self.load(size_class), free, self.limits)
                if turn is None:
                    break
                turn.running = True
                expected.append(ticket_id(turn.request))
        assert self.queue.granted() == expected  # one place, FIFO

    def close(self, ticket: str, end: End, count: int, answer: Answer) -> None:
        assert answer.state == ("ok" if ticket in self.live else "gone")
        if ticket in self.live:
            self.settle((ticket, end, count))
        else:
            self.settle()

    def pick(self, index: int) -> str:
        return self.seen[index % len(self.seen)]

    # What clients and the clock do

    @rule(crowd=st.lists(wants, min_size=1))
    def clients_ask(self, crowd: list[Want]) -> None:
        self.ask(crowd)

    def ask(self, crowd: list[Want]) -> None:
        for user, name, size in crowd:
            self.ask_one(Request("get", (f"/f{name}",), size, False, user, ""))

    def ask_one(self, request: Request) -> None:
        ticket = ticket_id(request)
        before = self.queue.snapshot()
        answer = self.queue.ask(request, self.now)
        if ticket in self.live:
            assert self.queue.snapshot() == before  # idempotent ask
            self.spoke(ticket)
        else:
            self.asked += 1
            size_class: SizeClass = "small" if request.bytes == 1 else "large"
            self.live[ticket] = Known(request, size_class, self.asked, self.now)
        if ticket not in self.seen:
            self.seen.append(ticket)
        self.settle()
        assert answer.state == ("ok" if self.live[ticket].running else "wait")

    @rule(indices=st.lists(st.integers(0, 99), min_size=1))
    def poll(self, indices: list[int]) -> None:
        for index in indices:
            self.poll_one(self.pick(index))

    def poll_one(self, ticket: str) -> None:
        answer = self.queue.poll(ticket, self.now)
        self.spoke(ticket)
        self.settle()
        known = self.live.get(ticket)
        assert answer.state == ("gone" if known is None else "ok" if known.running else "wait")
        shown = {row.ticket: row.position for row in self.queue.snapshot()}
        assert answer.position == shown.get(ticket, 0)

    @rule(index=st.integers(0, 99), count=st.integers(0, 9))
    def progress(self, index: int, count: int) -> None:
        ticket = self.pick(index)
        self.queue.progress(ticket, count, self.now)
        self.spoke(ticket)
        if ticket in self.live and self.live[ticket].running:
            self.live[ticket].done = count
        self.settle()

    @rule(index=st.integers(0, 99), outcome=st.sampled_from(["ok", "failed"]), count=st.integers(0, 9))
    def done(self, index: int, outcome: Outcome, count: int) -> None:
        ticket = self.pick(index)
        self.close(ticket, outcome, count, self.queue.done(ticket, outcome, count, self.now))

    @rule(index=st.integers(0, 99))
    def copy_ends(self, index: int) -> None:
        running = [ticket for ticket, known in self.live.items() if known.running]
        if running:
            ticket = running[index % len(running)]
            self.close(ticket, "ok", 1, self.queue.done(ticket, "ok", 1, self.now))

    @rule(index=st.integers(0, 99))
    def cancel(self, index: int) -> None:
        ticket = self.pick(index)
        count = self.live[ticket].done if ticket in self.live else 0
        self.close(ticket, "cancelled", count, self.queue.cancel(ticket, self.now))

    @rule(step=st.sampled_from([0.5, 1.0, 30.0, 60.0, 120.0, 121.0, -1.0, -50.0, -1e6]))
    def clock_moves(self, step: float) -> None:
        self.now += step
        self.expire()

    @rule(silent=st.sets(users, min_size=1, max_size=2))
    def users_fall_silent(self, silent: set[str]) -> None:
        for _ in range(2):
            for ticket in [t for t, known in self.live.items() if known.request.user not in silent]:
                self.poll_one(ticket)
            self.now += 0.75 * IDLE
            self.expire()

    @rule()
    def wait_for_the_deadline(self) -> None:
        deadline = self.queue.next_deadline()
        if deadline is not None:
            self.now = deadline
            assert self.expire()

    def expire(self) -> list[str]:
        purged = self.queue.expire(self.now)
        for known in self.live.values():  # from a clock set back, idle time counts on
            known.silent_since = min(known.silent_since, self.now)
        overdue = {ticket for ticket, known in self.live.items() if self.now > known.silent_since + IDLE}
        assert set(purged) == overdue  # patience
        assert len(purged) == len(overdue)
        self.settle(*[(ticket, "purged", self.live[ticket].done) for ticket in purged])
        return purged

    # What must always hold

    @invariant()
    def limit(self) -> None:
        for size_class in SIZE_CLASSES:
            running = Counter(row.user for row in self.rows(size_class, "running"))
            assert running.total() <= self.limits.places(size_class)
            assert self.limits.per_user is None or all(n <= self.limits.per_user for n in running.values())

    @invariant()
    def none_lost(self) -> None:
        shown = {row.ticket: (row.size_class, row.state, row.done) for row in self.queue.snapshot()}
        assert shown == {
            ticket: (known.size_class, "running" if known.running else "waiting", known.done)
            for ticket, known in self.live.items()
        }
        ended = self.queue.ended()
        assert {(e.size_class, e.end): e.tickets for e in ended} == dict(self.ends)
        assert {(e.size_class, e.end): e.bytes_done for e in ended} == dict(self.end_bytes)
        assert self.asked == len(shown) + sum(e.tickets for e in ended)

    @invariant()
    def patience(self) -> None:
        ends = [math.nextafter(known.silent_since + IDLE, math.inf) for known in self.live.values()]
        assert self.queue.next_deadline() == min(ends, default=None)

    @invariant()
    def work_conserving(self) -> None:
        for size_class in SIZE_CLASSES:
            running = Counter(row.user for row in self.rows(size_class, "running"))
            if running.total() < self.limits.places(size_class):
                able = self.limits.per_user or running.total() + 1
                assert all(running[row.user] >= able for row in self.rows(size_class, "waiting"))

    @invariant()
    def honest_position(self) -> None:
        unbounded = Limits(self.limits.small, self.limits.large)
        for size_class in SIZE_CLASSES:
            rows = self.rows(size_class, "waiting")
            assert [row.position for row in rows] == list(range(1, len(rows) + 1))
            running = self.load(size_class)
            waiting = self.members(size_class, running=False)
            for row in rows:
                turn = next_in_turn(waiting, running, 1, unbounded)
                assert turn is not None
                assert row.ticket == ticket_id(turn.request)
                waiting.remove(turn)
                running[turn.request.user] += 1


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=30, stateful_step_count=80, derandomize=True, deadline=None)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(limit_sets, st.lists(users, min_size=4, max_size=20), st.data())
def test_nobody_starves(limits: Limits, askers: list[str], data: st.DataObject) -> None:
    """With a new user at every end, who asked before still gets a place after a bounded number of ends."""
    queue = TicketQueue(limits)
    requests = [Request("put", (f"/f{k}",), 1, False, user, "") for k, user in enumerate(askers)]
    for request in requests:
        queue.ask(request, 0.0)
    running = queue.granted()
    waiting = [request for request in requests if ticket_id(request) not in running]
    target = data.draw(st.sampled_from(waiting or requests))
    own = sum(request.user == target.user for request in requests)
    ends = 0
    while queue.poll(ticket_id(target), 0.0).state == "wait":
        queue.ask(Request("put", ("/n",), 1, False, f"new{ends}", ""), 0.0)
        running += queue.granted()
        queue.done(running.pop(0), "ok", 1, 0.0)  # every copy ends: the longest running first
        running += queue.granted()
        ends += 1
        # For each of the user's tickets in turn: those that run end, then those asked earlier go first.
        assert ends <= own * (limits.small + len(requests))
