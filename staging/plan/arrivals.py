"""When each block of a plan arrives where: the cost model on a real tree, quick enough for 10,000 nodes. Pure.

A curve tells when the blocks of one stripe are complete at a node: block i of it at max(start + i * period) over the
curve's pieces. Blocks are alike, so an edge of the tree turns a curve into another one without looking at any block:
the child cannot be served faster than one block per round, and has each a hop later,

    (start, period)  ->  (start + hop, max(period, round))

with the round and the hop of `cost.py`, for the children that this parent really has and the rates of these two hosts.
That is one step per node and stripe, whatever the size of the file; and a curve never has more pieces than there are
different rounds above it. For a chain and for a k-ary tree it is exact: the tests compare it with `simulate.py`, which
moves every block. With several stripes two things are left out, and held to a few per cent there: that the stripes
of a node share its downlink, and that a sink fed too slowly in one stripe takes blocks of it from its other feeds.
"""

from __future__ import annotations

from collections.abc import Mapping

from staging.plan.cost import DEFAULT_LINK, Link, round_times
from staging.plan.tree import TreePlan

Curve = tuple[tuple[float, float], ...]  # (start, period), the periods rising

NO_RATES: Mapping[str, float] = {}


def arrivals(
    plan: TreePlan, total_bytes: int, block_size: int, link: Link = DEFAULT_LINK, rates: Mapping[str, float] = NO_RATES
) -> dict[str, float]:
    """Seconds until each sink has all of total_bytes. rates: bytes/s of the hosts that are not as `link` says."""
    block = max(1, min(block_size, total_bytes))
    stripes, n_nodes = plan.stripes, len(plan.feeds)
    busy = {name: sum(map(len, plan.children(name).values())) for name in (plan.source, *plan.feeds)}
    setup = (stripes + max(busy.values())) * link.setup
    if link.cores:
        setup = max(setup, n_nodes * stripes * link.setup / link.cores)
    ends = dict.fromkeys(plan.feeds, 0.0)
    steps: dict[tuple[Curve, int, float, float], Curve] = {}
    for stripe in range(stripes):
        whole, rest = divmod(total_bytes, block)
        blocks = (whole - stripe - 1) // stripes + 1 + (rest / block if whole % stripes == stripe else 0)
        last = max(0.0, blocks - 1)
        curves: dict[str, Curve] = {plan.source: ((setup, 0.0),)}
        for level in plan.levels(stripe):
            for name in level:
                parent = plan.feeds[name][stripe].peers[0]
                up, down = rates.get(parent, link.rate), rates.get(name, link.rate)
                key = (curves[parent], busy[parent], up, down)
                if key not in steps:
                    steps[key] = _step(curves[parent], *_edge(plan, busy[parent], block, link, up, down))
                curves[name] = steps[key]
                ends[name] = max(ends[name], *(start + last * period for start, period in curves[name]))
    return ends


def _edge(plan: TreePlan, copies: int, block: int, link: Link, up: float, down: float) -> tuple[float, float]:
    """The hop and the round of a parent with so many children and this child, in seconds."""
    wire = max(copies * block / up, plan.stripes * block / down)
    return round_times(wire, plan.stripes, copies, len(plan.feeds), block, link)


def _step(curve: Curve, hop: float, period: float) -> Curve:
    found: dict[float, float] = {}
    for start, own in curve:
        slower = max(own, period)
        found[slower] = max(found.get(slower, 0.0), start + hop)
    return tuple((start, own) for own, start in sorted(found.items()))
