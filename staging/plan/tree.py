"""Who feeds whom when one source sends to many nodes. Pure: names in, a plan out.

Bytes are cut into blocks, and block b belongs to stripe b % stripes. For each stripe every sink has one parent,
the source or another sink, and serves a block on as soon as it has the whole of it.

A k-ary tree is laid out in heap order: the source is 0, the sinks are 1..N in the order given, and the parent of i is
(i - 1) // k. With k = 1 that is the chain. The uplink of an interior node carries the file k times.

The double tree has two binary trees over the sinks alone, each root fed by the source: stripe 0 in heap order of
the list, stripe 1 in heap order of the reversed list. A binary heap of N has its N // 2 interior nodes in front,
so no sink is interior in both: an interior node sends two copies of half of the file, the source each half once.
The idea is that of Sanders, Speck and Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and
scan", Parallel Computing 35 (2009). Heap order takes the place of their in-order trees, since a pull over
full-duplex links needs no schedule of who sends when.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from staging.mover.errors import UsageError

Kind = Literal["chain", "tree", "double-tree"]

MAX_FANOUT = 1_000_000
MAX_PEERS = 256  # of one fallback list: all ancestors of a long chain would make the plan quadratic
RENDER_WIDTH = 100


@dataclass(frozen=True)
class Shape:
    """The form of a tree. `Shape("tree", 1)` is the same value as `Shape("chain", 1)`.

    fanout: children of an interior node in one stripe: 1 for a chain, 1 or more for a tree, 2 for a double tree
    (with more, an uplink would carry the file more than once).
    """

    kind: Kind
    fanout: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"unknown kind of tree {self.kind!r}", "it is one of " + ", ".join(get_args(Kind)))
        if not 1 <= self.fanout <= MAX_FANOUT:
            raise UsageError(f"a fan-out of {self.fanout} is impossible", f"choose one from 1 to {MAX_FANOUT}")
        fixed = {"chain": 1, "double-tree": 2}.get(self.kind, self.fanout)
        if self.fanout != fixed:
            raise UsageError(f"a {self.kind} has a fan-out of {fixed}, not {self.fanout}")
        if self.fanout == 1:
            object.__setattr__(self, "kind", "chain")

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read "chain", "tree:K", "K" or "double"; UsageError for anything else. Inverse of `str`."""
        if text == "chain":
            return CHAIN
        if text == "double":
            return DOUBLE_TREE
        digits = text.removeprefix("tree:")
        if digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_FANOUT)):
            return cls("tree", int(digits))
        raise UsageError(
            f"{text!r} is not the shape of a tree", "write chain, double, or a fan-out such as 2 or tree:2"
        )

    def __str__(self) -> str:
        return {"chain": "chain", "tree": f"tree:{self.fanout}", "double-tree": "double"}[self.kind]

    @property
    def stripes(self) -> int:
        return 2 if self.kind == "double-tree" else 1

    def depth(self, n_nodes: int) -> int:
        """Hops from the source to the deepest of n_nodes sinks; equals `build(...).depth()`."""
        if self.kind == "chain":
            return n_nodes
        if self.kind == "double-tree":
            return n_nodes.bit_length()
        hops, width, reached = 0, 1, 0
        while reached < n_nodes:
            width *= self.fanout
            reached += width
            hops += 1
        return hops


CHAIN = Shape("chain", 1)
DOUBLE_TREE = Shape("double-tree", 2)


@dataclass(frozen=True)
class Feed:
    """Where a sink gets one stripe: its parent, then in order whom to turn to when a feed dies.

    peers: the ancestors, nearest first, the source last; beyond MAX_PEERS the highest ones but the source are left out.
    """

    stripe: int
    peers: tuple[str, ...]


@dataclass(frozen=True)
class TreePlan:
    """One broadcast. `feeds` has every sink, in the order given, with one feed per stripe, by stripe."""

    source: str
    shape: Shape
    stripes: int
    feeds: Mapping[str, tuple[Feed, ...]]

    def children(self, name: str) -> dict[int, tuple[str, ...]]:
        """Whom `name` feeds, for every stripe, in the order of the nodes given; empty tuples for a leaf."""
        return {stripe: tuple(self._children[stripe].get(name, ())) for stripe in range(self.stripes)}

    def depth(self) -> int:
        """Hops from the source to the deepest sink, over all stripes."""
        deepest = 0
        for children in self._children:
            hops, level = 0, children.get(self.source, [])
            while level:
                hops += 1
                level = [child for name in level for child in children.get(name, ())]
            deepest = max(deepest, hops)
        return deepest

    @cached_property
    def _children(self) -> list[dict[str, list[str]]]:
        found: list[dict[str, list[str]]] = [{} for _ in range(self.stripes)]
        for name, feeds in self.feeds.items():
            for feed in feeds:
                found[feed.stripe].setdefault(feed.peers[0], []).append(name)
        return found


def build(source: str, nodes: Sequence[str], shape: Shape) -> TreePlan:
    """Plan a broadcast from `source` to `nodes`, placed in the order given.

    UsageError when there are no nodes, when one is named twice, or when the source is among them.
    """
    if not nodes:
        raise UsageError("there is no node to send to", "name at least one")
    twice = [name for name, count in Counter(nodes).items() if count > 1]
    if twice:
        raise UsageError(f"named more than once: {' '.join(twice)}", "name each node once")
    if source in nodes:
        raise UsageError(f"{source} is the source and a destination as well", "leave it out of the nodes")
    if shape.kind == "double-tree":
        trees = [_ancestors(source, order, shape.fanout) for order in (nodes, nodes[::-1])]
    else:
        trees = [_ancestors(source, [source, *nodes], shape.fanout)]
    feeds = {name: tuple(Feed(stripe, tree[name]) for stripe, tree in enumerate(trees)) for name in nodes}
    return TreePlan(source, shape, shape.stripes, feeds)


def _ancestors(source: str, heap: Sequence[str], fanout: int) -> dict[str, tuple[str, ...]]:
    """Everyone's ancestors, nearest first, in a heap whose root is the source or is fed by it."""
    found: dict[str, tuple[str, ...]] = {heap[0]: () if heap[0] == source else (source,)}
    for i, name in enumerate(heap[1:]):
        parent = heap[i // fanout]
        line = (parent, *found[parent])
        found[name] = line if len(line) <= MAX_PEERS else (*line[: MAX_PEERS - 1], source)
    return found


def render(plan: TreePlan) -> str:
    """Draw the plan, one indented tree per stripe; a node with a single child shares a line with it.

    >>> print(render(build("head", ["n1", "n2", "n3", "n4"], Shape.parse("2"))))
    tree:2, 4 nodes, depth 2
    head
      n1
        n3
        n4
      n2
    """
    title = f"{plan.shape}, {len(plan.feeds)} node{'s' if len(plan.feeds) > 1 else ''}, depth {plan.depth()}"
    lines = [title]
    for stripe in range(plan.stripes):
        if plan.stripes > 1:
            lines.append(f"stripe {stripe}:")
        todo = [(plan.source, 0)]
        while todo:
            name, level = todo.pop()
            run, children = [name], plan.children(name)[stripe]
            while len(children) == 1:
                run.append(children[0])
                children = plan.children(run[-1])[stripe]
            indent = "  " * level
            lines += textwrap.wrap(
                " -> ".join(run),
                RENDER_WIDTH,
                initial_indent=indent,
                subsequent_indent=indent + "  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            todo += [(child, level + 1) for child in reversed(children)]
    return "\n".join(lines)
