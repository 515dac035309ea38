"""The plan that is carried out: the shape that suits nodes, size, links and switches, built. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from staging.plan.arrivals import arrivals
from staging.plan.cost import MARGIN, SHAPES, Link, choose, choose_block
from staging.plan.topology import Topology
from staging.plan.tree import Shape, TreePlan, build


def best(
    source: str,
    nodes: Sequence[str],
    total_bytes: int,
    link: Link,
    shape: Shape | None = None,
    block_size: int | None = None,
    topology: Topology | None = None,
    host: str = "",
) -> tuple[TreePlan, int, float]:
    """Plan, block size and predicted seconds; a shape or a block size that is given is kept.

    The formula of `cost.py` knows no switches: with a topology every shape is built and its edges are gone along. As
    there, a simpler shape that is hardly slower is taken. topology, host: as `build` takes them.
    """
    if shape is None and topology is None:
        shape, block_size, _ = choose(len(nodes), total_bytes, link, block_size)
    options = []
    for one in SHAPES if shape is None else (shape,):
        block = block_size or choose_block(one, len(nodes), total_bytes, link)[0]
        plan = build(source, nodes, one, topology, host)
        options.append((plan, block, max(arrivals(plan, total_bytes, block, link).values())))
    enough = min(seconds for _, _, seconds in options) * (1 + MARGIN)
    return next(option for option in options if option[2] <= enough)
