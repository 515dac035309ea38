"""cluster.agent: orders find their target, also those that are faster than its start."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from cluster.agent import MAX_EARLY, Agent
from cluster.launch_client import LaunchClient


@pytest.fixture
def agent() -> Any:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = LaunchClient(ours)
    yield Agent("n1", "127.0.0.2", os.sep, client)
    client.close()
    theirs.close()


def test_orders_go_to_the_target_they_name(agent: Agent) -> None:
    got: dict[str, list[int]] = {"a": [], "b": []}
    for name, orders in got.items():
        agent.add(name, lambda order, orders=orders: orders.append(order["n"]))  # type: ignore[misc]
    agent.control("a", {"n": 1})
    agent.control("b", {"n": 2})
    agent.control("a", {"n": 3})
    assert got == {"a": [1, 3], "b": [2]}


def test_an_order_that_is_faster_than_its_targets_start_waits_for_it(agent: Agent) -> None:
    got: list[int] = []
    agent.control("a", {"n": 1})
    agent.control("other", {"n": 2})
    agent.control("a", {"n": 3})
    agent.add("a", lambda order: got.append(order["n"]))
    agent.control("a", {"n": 4})
    assert got == [1, 3, 4]


def test_orders_for_targets_that_have_ended_are_no_error_and_do_not_pile_up(agent: Agent) -> None:
    agent.add("a", lambda order: pytest.fail("it has ended"))
    agent.remove("a")
    for number in range(MAX_EARLY + 1):
        agent.control("a", {"n": number})
    got: list[int] = []
    agent.add("a", lambda order: got.append(order["n"]))
    assert got == list(range(1, MAX_EARLY + 1))
