"""Requests and their tickets, classes and limits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.mover.errors import UsageError
from staging.tickets.model import Limits, Request, ticket_id

MIB = 1024 * 1024
REQUEST = Request("put", ("/cache/a", "/cache/b"), 1000, False, "ann", "42")

names = st.text(st.characters(exclude_categories=()), min_size=1, max_size=4)  # lone surrogates included
requests = st.builds(
    Request,
    direction=st.sampled_from(["put", "get"]),
    paths=st.lists(names, min_size=1, max_size=3).map(tuple),
    bytes=st.none() | st.integers(0, 3),
    recursive=st.booleans(),
    user=names,
    job=names,
)


def test_ticket_stays_the_same_over_releases() -> None:
    # A ticket outlives the program that dealt it, so its encoding must not change unnoticed.
    assert ticket_id(REQUEST) == "80f4db6638db59b1e44d2b59e5bff131"


def test_ticket_does_not_depend_on_the_order_of_the_keys() -> None:
    fields = dict(vars(REQUEST))
    assert ticket_id(Request(**dict(reversed(fields.items())))) == ticket_id(Request(**fields))


@pytest.mark.parametrize(
    "change",
    [
        {"direction": "get"},
        {"paths": ("/cache/a",)},
        {"paths": ("/cache/a /cache/b",)},
        {"paths": ("/cache/b", "/cache/a")},
        {"bytes": 1001},
        {"bytes": None},
        {"recursive": True},
        {"user": "bob"},
        {"job": "43"},
    ],
    ids=repr,
)
def test_ticket_depends_on_every_field(change: dict[str, Any]) -> None:
    assert ticket_id(replace(REQUEST, **change)) != ticket_id(REQUEST)


def test_ticket_tells_names_apart_that_are_not_unicode() -> None:
    pair = replace(REQUEST, paths=("\ud800\udc00",))  # two lone surrogates
    assert ticket_id(pair) != ticket_id(replace(REQUEST, paths=("\U00010000",)))
    assert ticket_id(replace(REQUEST, paths=("\udcff",))) != ticket_id(replace(REQUEST, paths=("ÿ",)))


@given(requests, requests)
def test_equal_tickets_mean_equal_requests(one: Request, other: Request) -> None:
    assert (ticket_id(one) == ticket_id(other)) == (one == other)
    assert ticket_id(one) == ticket_id(replace(one))


@pytest.mark.parametrize(
    "change",
    [{"direction": "push"}, {"paths": ()}, {"paths": ("/a", "")}, {"bytes": -1}, {"user": ""}],
    ids=repr,
)
def test_request_refuses_nonsense(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        replace(REQUEST, **change)
    assert caught.value.remedy


def test_request_may_come_from_outside_a_job() -> None:
    assert replace(REQUEST, job="").job == ""


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "small"), (256 * MIB - 1, "small"), (256 * MIB, "large"), (None, "large")],
)
def test_class_goes_by_known_size(size: int | None, recursive: bool, expected: str) -> None:
    request = replace(REQUEST, bytes=size, recursive=recursive)
    assert Limits(small=4, large=1).size_class(request) == expected


def test_limits_have_their_documented_defaults() -> None:
    limits = Limits(small=8, large=2)
    assert (limits.threshold, limits.idle, limits.per_user) == (256 * MIB, 120.0, None)
    assert (limits.places("small"), limits.places("large")) == (8, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"small": 0},
        {"large": 0},
        {"per_user": 0},
        {"threshold": 0},
        {"idle": 0.0},
        {"idle": -1.0},
        {"idle": math.inf},
        {"idle": math.nan},
    ],
    ids=repr,
)
def test_limits_refuse_nonsense(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        replace(Limits(small=1, large=1), **change)
    assert caught.value.remedy
