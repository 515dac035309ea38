"""Who feeds whom when one source sends to many nodes. Pure: names in, a plan out.

Bytes are cut into blocks, and block b belongs to stripe b % stripes. For each stripe every sink has one parent,
the source or another sink, and serves a block on as soon as it has the whole of it.

A k-ary tree is laid out in heap order: the source is 0, the sinks are 1..N in the order given, and the parent of i is
(i - 1) // k. With k = 1 that is the chain. The uplink of an interior node carries the file k times.

`trees:k` are k trees over the sinks alone, one for each stripe, each root fed by the source. Only the sinks of the
k-th part of the list that belongs to a tree are interior in it, so no sink is interior twice: it sends k copies of
1/k of the file, the source each part once. Such a part has k * (N // k) children to spend where N - 1 are needed.
What is missing, at most k - 2, is dealt out evenly, so that an uplink carries at most

    ceil((N - 1) / (N // k)) / k      times the file:  1 where (N - 1) % k is 0 or k - 1, else 1 + 1/k for N >= k * k

With N < k there are N trees. `double` is k = 2, the double tree of Sanders, Speck and Träff, "Two-tree algorithms for
full bandwidth broadcast, reduction and scan", Parallel Computing 35 (2009). Heap order takes the place of their
in-order trees, since a pull over full-duplex links needs no schedule of who sends when.

With a topology every switch is entered once per stripe (`grow.py`). Then a switch's nodes have to feed each other in
every stripe, and the parts are dealt out switch by switch. Where that needs a sink to be interior in two trees it is,
since a switch's uplink that carries a stripe twice is slow for all behind it: being entered once wins over disjoint
trees. The sink that feeds fewest is taken, so an uplink carries hardly more than the file (the tests hold it to two).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from staging.mover.errors import UsageError
from staging.plan.grow import Switches, grow
from staging.plan.topology import Topology

Kind = Literal["chain", "tree", "trees"]

MAX_FANOUT = 1_000_000
MAX_TREES = 256  # a mover has a thread and a connection for each
MAX_PEERS = 256  # of one fallback list: all ancestors of a long chain would make the plan quadratic


@dataclass(frozen=True)
class Shape:
    """The form of a tree. With a fan-out of 1 every kind is the chain, the same value as `Shape("chain", 1)`.

    fanout: children of an interior node in one stripe; for `trees` also how many trees there are.
    """

    kind: Kind
    fanout: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"unknown kind of tree {self.kind!r}", "it is one of " + ", ".join(get_args(Kind)))
        if not 1 <= self.fanout <= MAX_FANOUT:
            raise UsageError(f"a fan-out of {self.fanout} is impossible", f"choose one from 1 to {MAX_FANOUT}")
        if self.kind == "trees" and self.fanout > MAX_TREES:
            raise UsageError(f"{self.fanout} disjoint trees are too many", f"choose at most {MAX_TREES}")
        if self.kind == "chain" and self.fanout != 1:
            raise UsageError(f"a chain has a fan-out of 1, not {self.fanout}")
        if self.fanout == 1:
            object.__setattr__(self, "kind", "chain")

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read "chain", "tree:K", "K", "double" or "trees:K"; UsageError for anything else. Inverse of `str`."""
        if text == "chain":
            return CHAIN
        if text == "double":
            return DOUBLE_TREE
        kind: Kind = "trees" if text.startswith("trees:") else "tree"
        digits = text.removeprefix(f"{kind}:")
        if digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_FANOUT)):
            return cls(kind, int(digits))
        raise UsageError(
            f"{text!r} is not the shape of a tree", "write chain, double, trees:4, or a fan-out such as 2 or tree:2"
        )

    def __str__(self) -> str:
        if self.kind == "chain":
            return "chain"
        return "double" if self == DOUBLE_TREE else f"{self.kind}:{self.fanout}"

    def stripes(self, n_nodes: int) -> int:
        """How many trees n_nodes sinks get."""
        return min(self.fanout, n_nodes) if self.kind == "trees" else 1

    def copies(self, n_nodes: int) -> int:
        """The most blocks that a sink, or the source, sends for each round of one block of every stripe."""
        if self.kind != "trees":
            return min(self.fanout, n_nodes)
        stripes = self.stripes(n_nodes)
        return max(stripes, -(-(n_nodes - 1) // (n_nodes // stripes)))

    def depth(self, n_nodes: int) -> int:
        """Hops from the source to the deepest of n_nodes sinks; equals `build(...).depth()` without a topology."""
        if self.kind == "chain":
            return n_nodes
        if self.kind == "trees":  # the source feeds the root alone
            hops, at, fanout = 1, n_nodes - 1, self.stripes(n_nodes)
        else:
            hops, at, fanout = 0, n_nodes, self.fanout
        if fanout == 1:
            return hops
        while at:
            at = (at - 1) // fanout
            hops += 1
        return hops


CHAIN = Shape("chain", 1)
DOUBLE_TREE = Shape("trees", 2)


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

    def levels(self, stripe: int) -> list[list[str]]:
        """The sinks of one stripe's tree by their distance from the source: one hop, two hops, ..."""
        found = []
        level = self._children[stripe].get(self.source, [])
        while level:
            found.append(level)
            level = [child for name in level for child in self._children[stripe].get(name, ())]
        return found

    def depth(self) -> int:
        """Hops from the source to the deepest sink, over all stripes."""
        return max(len(self.levels(stripe)) for stripe in range(self.stripes))

    @cached_property
    def _children(self) -> list[dict[str, list[str]]]:
        found: list[dict[str, list[str]]] = [{} for _ in range(self.stripes)]
        for name, feeds in self.feeds.items():
            for feed in feeds:
                found[feed.stripe].setdefault(feed.peers[0], []).append(name)
        return found


def build(
    source: str, nodes: Sequence[str], shape: Shape, topology: Topology | None = None, host: str = ""
) -> TreePlan:
    """Plan a broadcast from `source` to `nodes`, placed in the order given, or as the switches of a topology want it.

    host: what the topology calls the source, if not `source`; a source it does not have is outside of all switches.
    UsageError when there are no nodes, when one is named twice, or when the source is among them.
    """
    if not nodes:
        raise UsageError("there is no node to send to", "name at least one")
    twice = [name for name, count in Counter(nodes).items() if count > 1]
    if twice:
        raise UsageError(f"named more than once: {' '.join(twice)}", "name each node once")
    if source in nodes:
        raise UsageError(f"{source} is the source and a destination as well", "leave it out of the nodes")
    paths: dict[str, Switches] = {name: topology.path(name) if topology else () for name in nodes}
    home = topology.path(host or source) if topology and not topology.unlisted([host or source]) else ()
    stripes = shape.stripes(len(nodes))
    parts = _parts(paths, stripes)
    fed: Counter[str] = Counter()  # by each sink, in the stripes that are planned
    trees = []
    for stripe in range(stripes):
        slots = {name: shape.fanout if stripes == 1 else stripes * (parts[name] == stripe) for name in nodes}
        slots[source] = shape.fanout if shape.kind == "tree" else 1
        load = Counter({name: fed[name] + (stripes if parts[name] >= stripe else 0) for name in nodes})

        def extra(joined: Sequence[str], stripe: int = stripe, load: Counter[str] = load) -> str:
            # without switches the deepest: what its children have to wait longer for, few others wait for
            pick = joined if topology else [name for name in reversed(joined) if parts[name] == stripe]
            found = min(pick, key=lambda name: load[name])
            load[found] += 1
            return found

        start = next((at for at, name in enumerate(nodes) if parts[name] == stripe), 0)
        order = [*nodes[start:], *nodes[:start]]
        parents = grow(source, home, {name: paths[name] for name in order}, slots, extra)
        fed.update(parents.values())
        trees.append(_ancestors(source, parents))
    feeds = {name: tuple(Feed(stripe, tree[name]) for stripe, tree in enumerate(trees)) for name in nodes}
    return TreePlan(source, shape, stripes, feeds)


def _parts(paths: Mapping[str, Switches], stripes: int) -> dict[str, int]:
    """In which stripe each sink is interior: of the sinks of one switch each stripe gets its part in one piece.

    What is left over goes to the stripes in turn, so that over all switches their parts are alike.
    """
    below: dict[Switches, list[str]] = {}
    for name, path in paths.items():
        below.setdefault(path, []).append(name)
    found: dict[str, int] = {}
    turn = 0
    for names in below.values():
        whole, left = divmod(len(names), stripes)
        at = 0
        for stripe in range(stripes):
            size = whole + ((stripe - turn) % stripes < left)
            found.update(dict.fromkeys(names[at : at + size], stripe))
            at += size
        turn = (turn + left) % stripes
    return found


def _ancestors(source: str, parents: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Everyone's ancestors, nearest first; parents come before their children."""
    found: dict[str, tuple[str, ...]] = {}
    for name, parent in parents.items():
        line = (parent,) if parent == source else (parent, *found[parent])
        found[name] = line if len(line) <= MAX_PEERS else (*line[: MAX_PEERS - 1], source)
    return found
