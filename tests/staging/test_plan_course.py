"""staging.plan.course: whatever happens to the nodes, every one that is left is fed, and the slow feed nobody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from staging.plan.course import Course
from support.plans import planner

SHAPES = st.sampled_from(["chain", "2", "3", "double", "trees:3", "trees:5"])
CHANGES = st.lists(st.tuples(st.sampled_from(["join", "demote", "remove"]), st.integers(0, 30)), max_size=30)


def check(course: Course, here: set[str]) -> None:
    assert set(course.feeds) == here
    for name in here:
        for feed in course.feeds[name]:
            seen = {name}
            at = name
            while at != "source":  # upwards to the source, in every stripe
                at = course.feeds[at][feed.stripe].peers[0]
                assert at == "source" or (at in here and at not in seen)
                seen.add(at)
            assert feed.peers[-1] == "source"
            assert set(feed.peers) <= here | {"source"}
            assert name not in feed.peers


@given(st.integers(1, 12), SHAPES, CHANGES)
def test_every_node_is_fed_from_the_source_whatever_changes(count: int, shape: str, changes: list[object]) -> None:
    here = [f"n{number}" for number in range(count)]
    course = Course(here, planner(shape))
    check(course, set(here))
    for step, (change, number) in enumerate(changes):  # type: ignore[misc]
        before = dict(course.feeds)
        if change == "join":
            changed = course.join(f"late{len(before)}-{number}-{step}") if len(here) < 20 else {}
            here = list(course.feeds)
        elif here:
            name = here[number % len(here)]
            if change == "demote":
                changed = course.demote(name)
                assert not changed or not course.feeds_others(name)
            else:
                changed = course.remove(name)
                here.remove(name)
        else:
            continue
        check(course, set(here))
        for name, feeds in course.feeds.items():  # exactly those are named whose parents are others than before
            old = [f.peers[0] for f in before[name]] if name in before else None
            assert (name in changed) == (old != [f.peers[0] for f in feeds])


def test_in_a_chain_only_the_neighbours_of_a_dead_node_change() -> None:
    course = Course(["a", "b", "c", "d"], planner("chain"))
    changed = course.remove("b")
    assert {name: feeds[0].peers for name, feeds in changed.items()} == {"c": ("a", "source")}


def test_a_slow_node_goes_to_the_end_of_the_chain() -> None:
    course = Course(["a", "b", "c", "d"], planner("chain"))
    changed = course.demote("b")
    assert {name: feeds[0].peers for name, feeds in changed.items()} == {
        "c": ("a", "source"),
        "b": ("d", "c", "a", "source"),
    }


def test_the_only_node_cannot_be_put_aside() -> None:
    course = Course(["a"], planner("chain"))
    assert course.demote("a") == {}


def test_when_all_that_kept_up_are_gone_a_slow_one_takes_their_place() -> None:
    course = Course(["a", "b"], planner("chain"))
    course.demote("b")
    assert course.remove("a")["b"][0].peers == ("source",)


def test_in_a_heap_the_last_node_takes_the_place() -> None:
    course = Course(list("abcdefg"), planner("2"))
    assert set(course.demote("a")) == {"a", "g", "c", "d"}
