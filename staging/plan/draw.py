"""A plan as text: every edge where that can be read, hop by hop with folded names where there are many nodes. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from cluster.nodes import fold
from staging.plan.tree import TreePlan

WIDTH = 100
MAX_DRAWN = 40  # nodes of a tree that is drawn edge by edge
MAX_HOPS = 12  # lines of a stripe that is told hop by hop


def render(plan: TreePlan) -> str:
    """Draw the plan, one indented tree per stripe; a node with a single child shares a line with it.

    >>> from staging.plan.tree import Shape, build
    >>> print(render(build("head", ["n1", "n2", "n3", "n4"], Shape.parse("2"))))
    tree:2, 4 nodes, depth 2
    head
      n1
        n3
        n4
      n2
    >>> print(render(build("head", [f"n{i}" for i in range(1, 101)], Shape.parse("chain"))))
    chain, 100 nodes, depth 100
    head
      hops 1-100: 100 nodes, n[1-100]
    """
    title = f"{plan.shape}, {len(plan.feeds)} node{'s' if len(plan.feeds) > 1 else ''}, depth {plan.depth()}"
    lines = [title]
    for stripe in range(plan.stripes):
        if plan.stripes > 1:
            lines.append(f"stripe {stripe}:")
        lines += _drawn(plan, stripe) if len(plan.feeds) <= MAX_DRAWN else _told(plan, stripe)
    return "\n".join(lines)


def _drawn(plan: TreePlan, stripe: int) -> Iterator[str]:
    todo = [(plan.source, 0)]
    while todo:
        name, level = todo.pop()
        run, children = [name], plan.children(name)[stripe]
        while len(children) == 1:
            run.append(children[0])
            children = plan.children(run[-1])[stripe]
        indent = "  " * level
        yield from textwrap.wrap(
            " -> ".join(run),
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        todo += [(child, level + 1) for child in reversed(children)]


def _told(plan: TreePlan, stripe: int) -> Iterator[str]:
    yield plan.source
    levels = plan.levels(stripe)
    many = -(-len(levels) // MAX_HOPS)  # hops to a line, for all but the first
    at = 0
    while at < len(levels):
        upto = len(levels) if len(levels) == len(plan.feeds) else min(len(levels), at + many)
        names = [name for level in levels[at:upto] for name in level]
        hops = f"hop {upto}" if upto == at + 1 else f"hops {at + 1}-{upto}"
        line = f"  {hops}: {len(names)} node{'s' if len(names) > 1 else ''}, {fold(names)}"
        yield line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."
        at = upto
