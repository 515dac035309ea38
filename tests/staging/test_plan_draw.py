import doctest

from staging.plan import draw
from staging.plan.draw import render
from staging.plan.tree import CHAIN, DOUBLE_TREE, Shape, build


def test_double_tree() -> None:
    drawing = render(build("head", ["n1", "n2", "n3"], DOUBLE_TREE))
    assert drawing.splitlines() == [
        "double, 3 nodes, depth 2",
        "stripe 0:",
        "head -> n1",
        "  n2",
        "  n3",
        "stripe 1:",
        "head -> n3",
        "  n1",
        "  n2",
    ]


def test_examples_in_the_docstring() -> None:
    result = doctest.testmod(draw)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_long_chain_is_wrapped_between_names() -> None:
    names = [f"rack-17-shelf-{i}" for i in range(draw.MAX_DRAWN)]
    title, *lines = render(build("head", names, CHAIN)).splitlines()
    assert title == "chain, 40 nodes, depth 40"
    assert len(lines) > 1
    assert max(map(len, lines)) <= 100
    assert " ".join(lines).replace("->", " ").split() == ["head", *names]


def test_many_nodes_are_told_hop_by_hop_in_a_few_lines() -> None:
    lines = render(build("head", [f"n{i}" for i in range(5000)], Shape("trees", 3))).splitlines()
    assert lines[:6] == [
        "trees:3, 5000 nodes, depth 9",
        "stripe 0:",
        "head",
        "  hop 1: 1 node, n0",
        "  hop 2: 3 nodes, n[1-3]",
        "  hop 3: 9 nodes, n[4-12]",
    ]
    assert len(lines) == 1 + 3 * (2 + 9)
    assert sum(int(line.split()[2]) for line in lines if "hop" in line) == 3 * 5000
    assert max(map(len, lines)) <= 100
