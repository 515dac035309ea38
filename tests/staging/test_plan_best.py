"""The plan that is carried out: as the formula chooses, or, with switches, as the built plans turn out."""

from __future__ import annotations

import pytest

from staging.plan.best import best
from staging.plan.cost import MARGIN, SHAPES, Link, choose
from staging.plan.topology import Topology
from staging.plan.tree import CHAIN, DOUBLE_TREE, Shape

MiB = 1 << 20
SLOW = Link(rate=25e6)


@pytest.mark.parametrize("size", [1000, 64 * MiB])
@pytest.mark.parametrize("n", [1, 8, 100])
def test_without_switches_it_is_the_formula_s_choice(n: int, size: int) -> None:
    plan, block, seconds = best("head", [f"n{i}" for i in range(n)], size, SLOW)
    shape, chosen, predicted = choose(n, size, SLOW)
    assert (plan.shape, block) == (shape, chosen)
    assert seconds == pytest.approx(predicted, rel=0.1)


def test_what_is_given_is_kept() -> None:
    nodes = [f"n{i}" for i in range(9)]
    plan, block, _ = best("head", nodes, MiB, SLOW, Shape("trees", 3), 4096)
    assert (plan.shape, block) == (Shape("trees", 3), 4096)


def test_switches_count_in_the_choice() -> None:
    """Three nodes to a switch cannot feed each other and other switches in three trees; a chain is not disturbed."""
    nodes = [f"n{i}" for i in range(12)]
    racks = Topology({}, {name: f"s{i // 3}" for i, name in enumerate(nodes)})
    times = {shape: best("head", nodes, 64 * MiB, SLOW, shape, topology=racks)[2] for shape in SHAPES}
    plan, _, seconds = best("head", nodes, 64 * MiB, SLOW, topology=racks)
    assert plan.shape in (CHAIN, DOUBLE_TREE)
    assert seconds <= (1 + MARGIN) * min(times.values())
    assert {racks.path(name) for name in plan.levels(0)[0]} == {("s0",)}
