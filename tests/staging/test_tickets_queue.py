"""The ticket queue by example."""

from __future__ import annotations

import gc
import math
import weakref
from typing import cast

import pytest

from staging.mover.errors import UsageError
from staging.tickets.model import Answer, Ended, Limits, Outcome, Request, Row, ticket_id
from staging.tickets.queue import TicketQueue

SMALL, LARGE = 10, 1000
OK, GONE = Answer("ok"), Answer("gone")


def make(small: int = 1, large: int = 1, per_user: int | None = None, idle: float = 120.0) -> TicketQueue:
    return TicketQueue(Limits(small, large, threshold=100, idle=idle, per_user=per_user))


def req(user: str, name: object = "f", size: int | None = SMALL) -> Request:
    return Request("put", (f"/out/{name}",), size, False, user, "7")


def tid(user: str, name: object = "f", size: int | None = SMALL) -> str:
    return ticket_id(req(user, name, size))


def place(queue: TicketQueue, ticket: str, now: float = 0.0) -> int:
    answer = queue.poll(ticket, now)
    assert answer.state != "gone"
    return answer.position


def test_first_copies_and_the_next_waits() -> None:
    queue = make()
    assert queue.ask(req("ann"), 0.0) == OK
    assert queue.ask(req("bob"), 1.0) == Answer("wait", 1, 1.0)
    assert queue.ask(req("cat"), 2.0) == Answer("wait", 2, 2.0)


def test_done_gives_the_place_to_the_next() -> None:
    queue = make()
    for user in ("ann", "bob", "cat"):
        queue.ask(req(user), 0.0)
    assert queue.granted() == [tid("ann")]
    assert queue.done(tid("ann"), "ok", SMALL, 5.0) == OK
    assert queue.granted() == [tid("bob")]
    assert queue.granted() == []
    assert queue.poll(tid("bob"), 6.0) == OK
    assert queue.poll(tid("cat"), 6.0).position == 1


def test_failed_copy_frees_its_place_too() -> None:
    queue = make()
    queue.ask(req("ann"), 0.0)
    queue.ask(req("bob"), 0.0)
    queue.done(tid("ann"), "failed", 3, 1.0)
    assert queue.poll(tid("bob"), 1.0) == OK
    assert queue.ended() == (Ended("small", "failed", 1, 3),)


def test_classes_do_not_wait_for_each_other() -> None:
    queue = make(small=1, large=1)
    assert queue.ask(req("ann", 1, LARGE), 0.0) == OK
    assert queue.ask(req("ann", 2, None), 0.0).position == 1
    assert queue.ask(req("ann", 3, SMALL), 0.0) == OK
    assert queue.ask(req("ann", 4, SMALL), 0.0).position == 1


def test_asking_again_changes_nothing() -> None:
    queue = make()
    for user in ("ann", "bob", "cat"):
        queue.ask(req(user), 0.0)
    before = queue.snapshot()
    assert queue.ask(req("ann"), 1.0) == OK
    assert queue.ask(req("bob"), 1.0).position == 1
    assert queue.ask(req("cat"), 1.0).position == 2
    assert queue.snapshot() == before
    assert queue.granted() == [tid("ann")]


def test_many_requests_of_one_user_do_not_hold_up_the_first_of_another() -> None:
    queue = make(small=2)
    for k in range(500):
        queue.ask(req("ann", k), 0.0)
    assert queue.ask(req("bob"), 0.0).position == 1
    assert place(queue, tid("ann", 2)) == 2
    queue.done(tid("ann", 1), "ok", 0, 1.0)
    assert queue.poll(tid("bob"), 1.0) == OK
    # Both have one running now: ann asked first.
    queue.ask(req("bob", 2), 1.0)
    assert place(queue, tid("ann", 2)) == 1
    assert place(queue, tid("bob", 2)) == 2
    assert place(queue, tid("ann", 3)) == 3


def test_user_at_the_limit_is_passed_over_and_told_so() -> None:
    queue = make(small=2, per_user=1)
    assert queue.ask(req("ann", 1), 0.0) == OK
    assert queue.ask(req("ann", 2), 0.0).position == 1  # a place is free, but not for ann
    assert queue.ask(req("bob", 1), 0.0) == OK
    assert queue.ask(req("bob", 2), 0.0).position == 2
    assert queue.ask(req("cat", 1), 0.0).position == 1
    assert [place(queue, tid("ann", 2)), place(queue, tid("bob", 2))] == [2, 3]
    queue.done(tid("bob", 1), "ok", 0, 1.0)  # bob has none running now, and asked before cat
    assert queue.poll(tid("bob", 2), 1.0) == OK
    queue.done(tid("bob", 2), "ok", 0, 1.0)
    assert queue.poll(tid("cat", 1), 1.0) == OK
    assert queue.poll(tid("ann", 2), 1.0).position == 1
    queue.done(tid("ann", 1), "ok", 0, 1.0)
    assert queue.poll(tid("ann", 2), 1.0) == OK


def test_per_user_limit_counts_each_class_by_itself() -> None:
    queue = make(small=2, large=2, per_user=1)
    assert queue.ask(req("ann", 1, LARGE), 0.0) == OK
    assert queue.ask(req("ann", 2, SMALL), 0.0) == OK
    assert queue.ask(req("ann", 3, SMALL), 0.0).state == "wait"


def test_newcomers_do_not_starve_who_has_something_running() -> None:
    queue = make(small=2)
    queue.ask(req("ann", "long"), 0.0)
    queue.ask(req("new0"), 0.0)
    queue.ask(req("ann", "next"), 0.0)
    for k in range(50):  # each has none running, so each goes before ann's second
        queue.ask(req(f"new{k + 1}"), 0.0)
        queue.done(tid(f"new{k}"), "ok", 0, 0.0)
        assert queue.poll(tid(f"new{k + 1}"), 0.0) == OK
    queue.ask(req("late"), 0.0)
    queue.done(tid("ann", "long"), "ok", 0, 0.0)  # and now it is ann who asked first
    assert queue.poll(tid("ann", "next"), 0.0) == OK
    assert queue.poll(tid("late"), 0.0).position == 1


def test_idle_tickets_are_purged_and_their_places_given_on() -> None:
    queue = make()
    for user in ("ann", "bob", "cat"):
        queue.ask(req(user), 0.0)
    queue.poll(tid("cat"), 100.0)
    assert queue.expire(120.0) == []
    assert queue.expire(120.5) == [tid("ann"), tid("bob")]  # the one that ran and one that waited
    assert queue.granted() == [tid("cat")]  # bob, about to be purged, was not given the place first
    assert queue.poll(tid("ann"), 121.0) == GONE
    assert queue.ended() == (Ended("small", "purged", 2, 0),)
    assert queue.ask(req("ann"), 122.0).position == 1  # anew, at the end of the line


@pytest.mark.parametrize("word", ["ask", "poll", "progress"])
def test_any_word_keeps_a_ticket_alive(word: str) -> None:
    queue = make()
    queue.ask(req("ann"), 0.0)
    queue.ask(req("bob"), 0.0)
    if word == "ask":
        queue.ask(req("ann"), 60.0)
    elif word == "poll":
        queue.poll(tid("ann"), 60.0)
    else:
        queue.progress(tid("ann"), 1, 60.0)
    assert queue.expire(180.0) == [tid("bob")]
    assert queue.expire(180.5) == [tid("ann")]


def test_place_that_is_never_taken_up_is_purged_by_the_last_word_of_its_client() -> None:
    queue = make()
    queue.ask(req("ann"), 0.0)
    queue.ask(req("bob"), 0.0)
    queue.done(tid("ann"), "ok", 0, 119.0)
    assert queue.granted() == [tid("bob")]
    assert queue.expire(121.0) == [tid("bob")]


def test_next_deadline_is_the_first_moment_with_something_to_purge() -> None:
    queue = make(idle=0.1)
    assert queue.next_deadline() is None
    queue.ask(req("ann"), 0.2)
    queue.ask(req("bob"), 0.25)
    deadline = queue.next_deadline()
    assert deadline is not None
    assert queue.expire(math.nextafter(deadline, -math.inf)) == []
    assert queue.expire(deadline) == [tid("ann")]
    assert queue.next_deadline() == pytest.approx(0.35)


def test_clock_set_back_purges_nothing_and_idle_time_goes_on_from_there() -> None:
    queue = make(small=1)
    queue.ask(req("ann"), 1000.0)
    queue.ask(req("bob"), 1000.0)
    assert queue.expire(-50.0) == []
    assert queue.next_deadline() == pytest.approx(70.0)
    queue.poll(tid("bob"), 0.0)
    assert all(row.since <= 0.0 for row in queue.snapshot())
    assert queue.expire(69.0) == []
    assert queue.expire(71.0) == [tid("ann")]
    assert queue.poll(tid("bob"), 71.0) == OK


def test_unsteady_clock_does_not_add_up() -> None:
    queue = make()
    queue.ask(req("ann"), 100.0)
    for _ in range(1000):
        assert queue.expire(99.0) == []
        assert queue.expire(100.0) == []
    assert queue.expire(219.0) == []


def test_unknown_ticket_is_gone() -> None:
    queue = make()
    assert queue.poll("0" * 32, 0.0) == GONE
    assert queue.progress("0" * 32, 1, 0.0) == GONE
    assert queue.done("0" * 32, "ok", 1, 0.0) == GONE
    assert queue.cancel("0" * 32, 0.0) == GONE
    assert queue.snapshot() == ()
    assert queue.ended() == ()


def test_done_said_twice_ends_one_ticket() -> None:
    queue = make()
    for user in ("ann", "bob", "cat"):
        queue.ask(req(user), 0.0)
    assert queue.done(tid("ann"), "ok", 1, 0.0) == OK
    assert queue.done(tid("ann"), "ok", 1, 0.0) == GONE
    assert queue.poll(tid("cat"), 0.0).position == 1
    assert queue.ended() == (Ended("small", "ok", 1, 1),)


def test_done_while_waiting_ends_the_ticket() -> None:
    queue = make()
    queue.ask(req("ann"), 0.0)
    queue.ask(req("bob"), 0.0)
    queue.ask(req("cat"), 0.0)
    assert queue.done(tid("bob"), "ok", 9, 0.0) == OK
    assert queue.ended() == (Ended("small", "ok", 1, 9),)
    assert queue.poll(tid("cat"), 0.0).position == 1


def test_cancel_ends_what_waits_and_what_runs() -> None:
    queue = make()
    for user in ("ann", "bob", "cat"):
        queue.ask(req(user), 0.0)
    queue.progress(tid("ann"), 4, 0.0)
    assert queue.cancel(tid("bob"), 1.0) == OK
    assert queue.poll(tid("cat"), 1.0).position == 1
    assert queue.cancel(tid("ann"), 1.0) == OK
    assert queue.poll(tid("cat"), 1.0) == OK
    assert queue.ended() == (Ended("small", "cancelled", 2, 4),)


def test_cancel_in_the_middle_of_one_users_tickets_keeps_the_rest_in_order() -> None:
    queue = make()
    for k in range(5):
        queue.ask(req("ann", k), 0.0)
    queue.cancel(tid("ann", 2), 0.0)
    assert [place(queue, tid("ann", k)) for k in (1, 3, 4)] == [1, 2, 3]


def test_granted_leaves_out_what_has_ended_meanwhile() -> None:
    queue = make()
    queue.ask(req("ann"), 0.0)
    queue.ask(req("bob"), 0.0)
    queue.cancel(tid("ann"), 0.0)
    assert queue.granted() == [tid("bob")]


def test_progress_is_shown_and_tells_who_waits_to_stop() -> None:
    queue = make()
    queue.ask(req("ann"), 0.0)
    queue.ask(req("bob"), 0.0)
    assert queue.progress(tid("ann"), 6, 1.0) == OK
    assert queue.progress(tid("bob"), 6, 1.0).state == "wait"
    assert [row.done for row in queue.snapshot()] == [6, 0]


def test_nothing_is_kept_of_what_has_ended() -> None:
    class User(str):  # a str that can be weakly referenced
        pass

    def history(queue: TicketQueue) -> weakref.ref[User]:
        user = User("ann")
        for k in range(4):
            queue.ask(req(user, k), 0.0)
        queue.done(tid("ann", 0), "ok", 0, 0.0)
        queue.cancel(tid("ann", 2), 0.0)
        assert len(queue.expire(1000.0)) == 2
        return weakref.ref(user)

    queue = make()
    user = history(queue)
    assert sum(ended.tickets for ended in queue.ended()) == 4
    gc.collect()
    assert user() is None


def test_nonsense_in_a_report_is_refused() -> None:
    queue = make()
    queue.ask(req("ann"), 0.0)
    with pytest.raises(UsageError):
        queue.progress(tid("ann"), -1, 0.0)
    with pytest.raises(UsageError):
        queue.done(tid("ann"), "ok", -1, 0.0)
    with pytest.raises(UsageError):
        queue.done(tid("ann"), cast(Outcome, "perhaps"), 1, 0.0)
    assert queue.poll(tid("ann"), 0.0) == OK


def test_sleep_grows_with_position_and_leaves_four_words_before_the_purge() -> None:
    queue = make()
    answers = [queue.ask(req("ann", k), 0.0) for k in range(50)]
    assert [answer.sleep for answer in answers] == [min(k, 30.0) for k in range(50)]


def test_snapshot_shows_what_runs_and_what_waits() -> None:
    queue = make(small=1, large=1)
    queue.ask(req("ann", 1, None), 1.0)
    queue.ask(req("ann", 2), 2.0)
    queue.ask(req("ann", 3), 3.0)
    queue.ask(req("bob", 4), 4.0)
    queue.done(tid("ann", 2), "ok", 0, 5.0)
    assert queue.snapshot() == (
        Row(tid("ann", 3), "small", "ann", "7", SMALL, 0, "running", 0, 5.0),
        Row(tid("bob", 4), "small", "bob", "7", SMALL, 0, "waiting", 1, 4.0),
        Row(tid("ann", 1, None), "large", "ann", "7", None, 0, "running", 0, 1.0),
    )


@pytest.mark.parametrize("users", [1, 100, 10_000])
def test_ten_thousand_tickets(users: int) -> None:
    queue = make(small=4)
    requests = [req(f"user{k % users}", k) for k in range(10_000)]
    tickets = [ticket_id(request) for request in requests]
    answers = [queue.ask(request, 0.0) for request in requests]
    assert sum(answer.state == "ok" for answer in answers) == 4
    assert sorted(place(queue, ticket) for ticket in tickets) == [0] * 4 + list(range(1, 9_997))
    served: list[str] = []
    while granted := queue.granted():
        served += granted
        assert len(granted) <= 4
        for ticket in granted:
            queue.done(ticket, "ok", 1, 1.0)
    assert served == tickets  # equal shares, so the order of asking
    assert queue.snapshot() == ()
