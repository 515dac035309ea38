from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staging.mover.errors import UsageError
from staging.plan.topology import Topology, parse
from staging.plan.tree import CHAIN, DOUBLE_TREE, Shape, TreePlan, build

EXAMPLE = """
# two racks of one row, and one more
SwitchName=s1 Nodes=n[1-3] LinkSpeed=900
switchname=s2 nodes=n[4-5],gpu1   # the new one
SwitchName=s3 \\
    Nodes=m[01-02]

SwitchName=row Switches=s[1-2]
SwitchName=top Switches=row,s3
"""

shapes = st.one_of(
    st.just(CHAIN),
    st.just(DOUBLE_TREE),
    st.builds(Shape, st.sampled_from(["tree", "trees"]), st.integers(1, 6)),
)


@st.composite
def topologies(draw: st.DrawFn) -> tuple[Topology, list[str], str]:
    """Switches up to three deep, sinks in any order, and the source: below a switch or not in the file."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=9))
    leaf = {f"n{s}-{i}": f"s{s}" for s, size in enumerate(sizes) for i in range(size)}
    rows = {f"s{s}": f"r{draw(st.integers(0, 2))}" for s in range(len(sizes)) if draw(st.booleans())}
    above = rows | {row: "top" for row in set(rows.values()) if draw(st.booleans())}
    source = "elsewhere"
    if draw(st.booleans()):
        source = "front"
        leaf[source] = f"s{draw(st.integers(0, len(sizes) - 1))}"
    unlisted = [f"x{i}" for i in range(draw(st.integers(0, 3)))]
    names = [*(name for name in leaf if name != source), *unlisted] or ["alone"]
    return Topology(above, leaf), draw(st.permutations(names)), source


def entries(plan: TreePlan, topology: Topology, host: str) -> dict[tuple[int, str], int]:
    """How often each stripe enters each switch that holds a sink."""
    behind = {name: set(topology.path(name)) for name in plan.feeds}
    behind[plan.source] = set() if topology.unlisted([host]) else set(topology.path(host))
    found = {(stripe, switch): 0 for stripe in range(plan.stripes) for name in plan.feeds for switch in behind[name]}
    for name, feeds in plan.feeds.items():
        for feed in feeds:
            for switch in behind[name] - behind[feed.peers[0]]:
                found[feed.stripe, switch] += 1
    return found


@given(topologies(), shapes)
def test_each_switch_is_entered_once_per_stripe(place: tuple[Topology, list[str], str], shape: Shape) -> None:
    topology, nodes, host = place
    plan = build("source", nodes, shape, topology, host)
    assert list(plan.feeds) == nodes
    inside = set() if topology.unlisted([host]) else set(topology.path(host))
    for (_, switch), count in entries(plan, topology, host).items():
        assert count == (0 if switch in inside else 1)
    for name, feeds in plan.feeds.items():
        assert [feed.stripe for feed in feeds] == list(range(plan.stripes))
        for feed in feeds:
            assert feed.peers[-1] == "source"
            above = feed.peers[0]
            assert above == "source" or plan.feeds[above][feed.stripe].peers == feed.peers[1:]
            assert name not in feed.peers
    for name in nodes:
        children = [len(found) for found in plan.children(name).values()]
        if shape.kind == "trees":
            assert sum(children) <= 2 * plan.stripes  # two files
        else:
            assert sum(children) <= shape.fanout


def test_two_stripes_of_even_racks_stay_disjoint_and_carry_the_file_once() -> None:
    leaf = {f"n{i}": f"s{i // 8}" for i in range(256)}
    plan = build("head", list(leaf), DOUBLE_TREE, Topology({}, leaf))
    for name in leaf:
        children = [len(found) for found in plan.children(name).values()]
        assert sum(children) <= 2
        assert 0 in children


@pytest.mark.parametrize("k", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("size", [8, 18, 32, 40])
def test_uplinks_with_racks_of_the_usual_sizes(k: int, size: int) -> None:
    leaf = {f"n{i}": f"s{i // size}" for i in range(20 * size)}
    plan = build("head", list(leaf), Shape("trees", k), Topology({}, leaf))
    assert max(sum(map(len, plan.children(name).values())) for name in leaf) <= k + 2
    assert plan.depth() <= 20 * 4


def test_one_switch_for_all_changes_nothing_where_there_is_one_stripe() -> None:
    nodes = [f"n{i}" for i in range(50)]
    topology = Topology({"s": "row"}, dict.fromkeys(["head", *nodes], "s"))
    for shape in (CHAIN, Shape("tree", 2), Shape("tree", 5)):
        assert build("head", nodes, shape, topology) == build("head", nodes, shape)


def test_a_chain_visits_rack_after_rack_beginning_with_the_source_s() -> None:
    nodes = [f"n{i}" for i in range(12)]
    Random(1).shuffle(nodes)
    racks = {f"n{i}": f"s{i % 3}" for i in range(12)} | {"front": "s1"}
    plan = build("source", nodes, CHAIN, Topology({}, racks), "front")
    order = sorted(nodes, key=lambda name: len(plan.feeds[name][0].peers))
    assert {racks[name] for name in order[:4]} == {"s1"}
    assert [len({racks[name] for name in order[at : at + 4]}) for at in (0, 4, 8)] == [1, 1, 1]


def test_the_format() -> None:
    topology = parse(EXAMPLE)
    assert topology.path("n3") == ("top", "row", "s1")
    assert topology.path("gpu1") == ("top", "row", "s2")
    assert topology.path("m02") == ("top", "s3")
    assert topology.path("n9") == ("",)
    assert topology.unlisted(["n9", "n1"]) == ["n9"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SwitchName=a Nodes=n1\nSwitchName=b Nodes=n[1-2]", "line 2: node n1 is under a already; name it once"),
        ("SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2", "line 2: switch a is in line 1 already; keep one"),
        ("SwitchName=a Switches=b", "line 1: switch b is not described; add a line SwitchName=b"),
        ("\nSwitchName=a \\\n Switches=b", "line 2: switch b is not described"),
        ("SwitchName=a Switches=b\nSwitchName=b Switches=a", "a loop of switches: a under b under a; leave one"),
        ("SwitchName=a Switches=a", "a loop of switches: a under a"),
        ("SwitchName=a Nodes=n1\nSwitchName=b Switches=a\nSwitchName=c Switches=a", "line 3: switch a is under b"),
        ("SwitchName=a", "switch a needs nodes or switches"),
        ("SwitchName=a Nodes=n1 Switches=b", "switch a needs nodes or switches, one of them"),
        ("BlockName=a Nodes=n1", "line 1 does not describe a switch: 'blockname'; write it like SwitchName=s1"),
        ("Nodes=n1", "line 1 does not describe a switch"),
        ("hello", "line 1 does not describe a switch: 'hello'"),
        ("SwitchName=a Nodes=n1 more", "'more'"),
        ("SwitchName=a Nodes=n[1-99999]\nSwitchName=b Nodes=m[1-9]", "line 2: more than 100000 nodes and switches"),
        ("SwitchName=a Nodes=n[1-", "line 1: .*is not a node set"),
        ("SwitchName=s[1-2] Nodes=n1", "cannot be the name of one switch"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_remedy(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse(text)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@given(st.text(st.sampled_from("SwitchName= odsu\\\n#[]1-2,ab")))
def test_any_text_is_a_topology_or_a_usage_error(text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        told = str(error)
    else:
        told = ""
    assert "\n" not in told
