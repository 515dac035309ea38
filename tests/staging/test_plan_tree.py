from math import ceil, log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.mover.errors import UsageError
from staging.plan.tree import CHAIN, DOUBLE_TREE, MAX_FANOUT, MAX_PEERS, Shape, TreePlan, build

fanouts = st.integers(1, 9)
disjoint = fanouts.map(lambda k: Shape("trees", k))
shapes = st.one_of(st.just(CHAIN), st.just(DOUBLE_TREE), fanouts.map(lambda k: Shape("tree", k)), disjoint)
node_lists = st.integers(1, 200).flatmap(lambda n: st.permutations([f"n{i}" for i in range(n)]))


def parents(plan: TreePlan, stripe: int) -> dict[str, str]:
    return {name: feeds[stripe].peers[0] for name, feeds in plan.feeds.items()}


def ancestors(plan: TreePlan, stripe: int, name: str) -> list[str]:
    """By following parents alone; fails on a cycle."""
    up, line = parents(plan, stripe), []
    while name != plan.source:
        name = up[name]
        assert name not in line
        line.append(name)
    return line


def copies(plan: TreePlan, name: str) -> float:
    """How many times the file crosses the uplink of `name`."""
    return sum(len(children) for children in plan.children(name).values()) / plan.stripes


@given(node_lists, shapes)
def test_every_stripe_reaches_every_sink_and_peers_are_its_ancestors(nodes: list[str], shape: Shape) -> None:
    plan = build("head", nodes, shape)
    assert list(plan.feeds) == nodes
    for name, feeds in plan.feeds.items():
        assert [feed.stripe for feed in feeds] == list(range(plan.stripes))
        for feed in feeds:
            assert list(feed.peers) == ancestors(plan, feed.stripe, name)
            assert feed.peers[-1] == "head"
            assert len(set(feed.peers)) == len(feed.peers)
            assert name not in feed.peers


@given(node_lists, shapes)
def test_children_mirror_parents(nodes: list[str], shape: Shape) -> None:
    plan = build("head", nodes, shape)
    for stripe in range(plan.stripes):
        edges = {(child, name) for name in ["head", *nodes] for child in plan.children(name)[stripe]}
        assert edges == set(parents(plan, stripe).items())


@given(node_lists, shapes)
def test_uplinks_carry_no_more_copies_than_the_shape_says(nodes: list[str], shape: Shape) -> None:
    plan = build("head", nodes, shape)
    assert all(copies(plan, name) <= shape.copies(len(nodes)) / plan.stripes for name in nodes)
    if shape.kind == "tree":
        assert copies(plan, "head") == min(shape.fanout, len(nodes))
    else:
        assert [len(children) for children in plan.children("head").values()] == [1] * plan.stripes


@given(st.integers(1, 300), st.integers(1, 12))
def test_disjoint_trees(n: int, k: int) -> None:
    plan = build("head", [f"n{i}" for i in range(n)], Shape("trees", k))
    assert plan.stripes == min(n, k)
    most = max(copies(plan, name) for name in plan.feeds)
    for name in plan.feeds:
        assert sum(map(bool, plan.children(name).values())) <= 1
    if n < k:
        assert most == (n - 1) / n
    else:
        assert most <= ceil((n - 1) / (n // k)) / k
        if (n - 1) % k in (0, k - 1):
            assert most <= 1
        elif n >= k * k:
            assert most <= 1 + 1 / k
        # a full k-ary tree of depth d holds k^0 + ... + k^(d - 1) sinks
        assert k == 1 or plan.depth() <= ceil(log2(n * (k - 1) + 1) / log2(k) - 1e-9)


@given(node_lists, shapes, st.randoms(use_true_random=False))
def test_only_the_place_in_the_list_counts(nodes: list[str], shape: Shape, random: Random) -> None:
    other = random.sample(nodes, len(nodes))
    renamed = dict(zip(nodes, other, strict=True)) | {"head": "head"}
    plan, twin = build("head", nodes, shape), build("head", other, shape)
    for stripe in range(plan.stripes):
        moved = {renamed[child]: renamed[parent] for child, parent in parents(plan, stripe).items()}
        assert moved == parents(twin, stripe)


@given(node_lists, shapes)
def test_depth_is_that_of_the_deepest_sink_and_bounded(nodes: list[str], shape: Shape) -> None:
    plan, n = build("head", nodes, shape), len(nodes)
    deepest = max(len(ancestors(plan, stripe, name)) for stripe in range(plan.stripes) for name in nodes)
    assert plan.depth() == shape.depth(n) == deepest
    if shape.kind == "chain":
        assert deepest == n
    elif shape.kind == "tree":
        # a full tree of depth d holds k + ... + k^d sinks; the slack is for log2 of whole powers in floating point
        assert deepest <= ceil(log2(n * (shape.fanout - 1) + shape.fanout) / log2(shape.fanout) - 1 - 1e-9)
    elif shape == DOUBLE_TREE:
        assert deepest <= log2(n) + 1


def test_heap_order_follows_the_list() -> None:
    plan = build("head", ["c", "a", "d", "b", "e"], Shape("tree", 2))
    assert parents(plan, 0) == {"c": "head", "a": "head", "d": "c", "b": "c", "e": "a"}
    assert plan.children("c") == {0: ("d", "b")}
    assert plan.children("e") == {0: ()}


def test_fallback_lists_of_a_very_long_chain_keep_the_nearest_and_the_source() -> None:
    names = [f"n{i}" for i in range(2000)]
    plan = build("head", names, CHAIN)
    peers = plan.feeds["n1999"][0].peers
    assert peers == (*names[1998 : 1998 - (MAX_PEERS - 1) : -1], "head")
    assert len(plan.feeds[names[MAX_PEERS - 1]][0].peers) == MAX_PEERS  # complete up to here
    assert plan.depth() == 2000


@pytest.mark.parametrize(
    ("nodes", "says"),
    [([], "no node"), (["a", "b", "a"], "more than once: a;"), (["a", "head"], "head is the source")],
)
def test_impossible_nodes(nodes: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build("head", nodes, CHAIN)


@given(st.one_of(shapes, st.just(Shape("tree", MAX_FANOUT))))
def test_shape_round_trips(shape: Shape) -> None:
    assert Shape.parse(str(shape)) == shape


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("chain", CHAIN),
        ("1", CHAIN),
        ("trees:1", CHAIN),
        ("tree:4", Shape("tree", 4)),
        ("4", Shape("tree", 4)),
        ("double", DOUBLE_TREE),
        ("trees:2", DOUBLE_TREE),
        ("trees:4", Shape("trees", 4)),
    ],
)
def test_shape_words(text: str, shape: Shape) -> None:
    assert Shape.parse(text) == shape


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tree",
        "tree:",
        "tree:x",
        "0",
        "-1",
        "+2",
        " 2",
        "2.5",
        "٢",
        "tree:tree:2",
        "trees:",
        "trees:0",
        "Chain",
        "9" * 5000,
    ],
)
def test_nonsense_shapes(text: str) -> None:
    with pytest.raises(UsageError):
        Shape.parse(text)


@pytest.mark.parametrize(("kind", "fanout"), [("chain", 2), ("trees", 0), ("trees", 257), ("tree", 0), ("ring", 1)])
def test_shapes_that_cannot_be(kind: str, fanout: int) -> None:
    with pytest.raises(UsageError):
        Shape(kind, fanout)  # type: ignore[arg-type]
