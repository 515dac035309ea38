"""staging.orders: what a mover is told, and that its launch permits this order and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.mover.order import order_digest
from staging.orders import (
    ORDER_VARIABLE,
    Membership,
    SinkOrder,
    SourceOrder,
    complete,
    feeds_order,
    mover_environment,
)

SUMMARY = {"identity": "ab" * 32, "digest": "cd" * 32, "hash": "blake3", "block": 65536, "bytes": 7, "tops": ["f"]}
ORDERS = [SourceOrder(("a", "b")).to_order(), SinkOrder("/scratch/f", SUMMARY).to_order()]


@pytest.mark.parametrize("order", ORDERS)
def test_what_differs_from_node_to_node_or_is_secret_is_not_bound(order: dict[str, Any]) -> None:
    one = complete(order, Membership(), "127.0.0.2", "/roots/n1")
    other = complete(order, Membership(), "127.0.0.3", "")
    assert mover_environment(order) == {ORDER_VARIABLE: order_digest(one)} == {ORDER_VARIABLE: order_digest(other)}
    assert order.items() < one.items()


@pytest.mark.parametrize("order", ORDERS)
def test_anything_else_is_bound(order: dict[str, Any]) -> None:
    for name in order:
        changed = {**order, name: "something else"}
        assert order_digest(changed) != order_digest(order)
    assert order_digest({**order, "more": 1}) != order_digest(order)


@given(st.text(), st.text())
def test_orders_with_different_destinations_have_different_digests(one: str, other: str) -> None:
    digests = {order_digest(SinkOrder(dest, SUMMARY).to_order()) for dest in (one, other)}
    assert len(digests) == len({one, other})


@pytest.mark.parametrize("order", [*ORDERS, SinkOrder("\udcff", {**SUMMARY, "tops": ["\udce9"]}).to_order()])
def test_an_order_survives_its_way_to_the_mover(order: dict[str, Any]) -> None:
    written = complete(order, Membership(), "127.0.0.1", "")
    read = json.loads(json.dumps(written).encode("ascii"))
    assert read == written
    assert order_digest(read) == order_digest(order)


def test_each_transfer_has_an_id_and_a_key_of_its_own_and_the_key_does_not_show() -> None:
    one, other = Membership(), Membership()
    assert len(bytes.fromhex(one.transfer)) == 16
    assert len(bytes.fromhex(one.key)) == 32
    assert {one.transfer, one.key}.isdisjoint({other.transfer, other.key})
    assert one.key not in repr(one)


def test_feeds() -> None:
    feed = {"stripe": 0, "peers": [["n1", "127.0.0.2", 1]]}
    order = feeds_order(2, (feed,), ("source", "127.0.0.1", 2))
    assert order == {"op": "run", "stripes": 2, "feeds": [feed], "source": ["source", "127.0.0.1", 2]}
