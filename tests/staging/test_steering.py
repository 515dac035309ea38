"""staging.steering: the orders that nodes get as a broadcast goes on."""

from __future__ import annotations

import pytest

from staging.steering import Steering
from support.plans import planner

MIB = 1 << 20


@pytest.fixture
def steering() -> Steering:
    made = Steering(("10.0.0.9", 900), 100 * MIB, MIB, 0.25)
    for number in (1, 2, 3):
        made.endpoints[f"n{number}"] = (f"10.0.0.{number}", number)
    made.start(["n1", "n2", "n3"], planner("chain"), 0.0)
    return made


def parents(steering: Steering, name: str) -> list[str]:
    return [feed["peers"][0][0] for feed in steering.order("run", name)["feeds"]]


def test_an_order_has_the_whole_way_back_to_the_source(steering: Steering) -> None:
    order = steering.order("run", "n3")
    line = [["n2", "10.0.0.2", 2], ["n1", "10.0.0.1", 1], ["source", "10.0.0.9", 900]]
    assert order["op"] == "run"
    assert order["stripes"] == 1
    assert order["feeds"] == [{"stripe": 0, "peers": line}]
    assert order["source"] == ["source", "10.0.0.9", 900]


def test_a_later_order_has_a_higher_number(steering: Steering) -> None:
    before = steering.order("run", "n3")["turn"]
    assert steering.leave("n2") == ["n3"]
    after = steering.order("feeds", "n3")
    assert after["turn"] > before
    assert parents(steering, "n3") == ["n1"]


def test_a_node_that_comes_late_is_fed_and_one_of_the_plan_is_not_moved(steering: Steering) -> None:
    steering.endpoints["n4"] = ("10.0.0.4", 4)
    assert steering.join("n2") == []
    assert steering.join("n4") == ["n4"]
    assert parents(steering, "n4") == ["n3"]


def test_who_is_not_in_the_tree_may_leave(steering: Steering) -> None:
    assert steering.leave("n9") == []


def test_before_the_start_there_is_nobody_to_tell() -> None:
    steering = Steering(("10.0.0.9", 900), MIB, MIB, 0.25)
    steering.endpoints["n1"] = ("10.0.0.1", 1)
    steering.heard("n1", 0, 0.0)
    assert steering.leave("n1") == []
    assert not steering.started
    assert steering.endpoints == {}


def test_a_node_that_holds_others_up_is_put_aside_and_those_that_are_done_are_left_alone(steering: Steering) -> None:
    for now in (0.5, 1.0, 1.5, 2.0):
        for name, rate in (("n1", 20), ("n2", 1), ("n3", 1)):
            steering.heard(name, int(rate * MIB * now), now)
        slow, changed = steering.adjust(now)
        if slow:
            break
    assert slow == "n2"
    assert sorted(changed) == ["n2", "n3"]
    assert parents(steering, "n3") == ["n1"]
    steering.completed("n3")
    assert steering.leave("n1") == []  # it fed n3 alone, which needs nothing any more
