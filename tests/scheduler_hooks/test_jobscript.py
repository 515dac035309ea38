"""scheduler_hooks.jobscript: which nodes a target means, where a source lands, and which paths clash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_hooks.directives import parse
from scheduler_hooks.jobscript import Target, conflicts, is_directory_form, landing
from scheduler_hooks.patterns import Values
from staging.mover.errors import UsageError

NODES = ("n1", "n2", "n3")
JOB = Values("41", "ada", "motif")


def clashes(*header: str, nodes: tuple[str, ...] = NODES) -> list[tuple[int, str]]:
    """(line, "message; remedy") of each conflict; the first header line is line 2."""
    script, problems = parse("\n".join(["#!/bin/sh", *header]), "job.sh")
    assert problems == []
    return [(problem.line, f"{problem.message}; {problem.remedy}") for problem in conflicts(script, nodes, JOB)]


@pytest.mark.parametrize(
    ("target", "nodes"),
    [
        (Target("all"), NODES),
        (Target("first"), ("n1",)),
        (Target("rank", rank=2), ("n3",)),
        (Target("nodes", names=("n3", "n1")), ("n1", "n3")),
    ],
)
def test_resolve(target: Target, nodes: tuple[str, ...]) -> None:
    assert target.resolve(NODES) == nodes


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target("rank", rank=3), "there is no rank 3 in a job of 3 nodes; write a rank below 3"),
        (Target("nodes", names=("n1", "n9")), "n9 is not a node of this job; choose from n[1-3]"),
        (Target("nodes", names=("frist",)), "frist is not a node of this job; write first"),
        (Target("nodes", names=("All",)), "All is not a node of this job; write all"),
    ],
)
def test_a_target_outside_the_job(target: Target, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        target.resolve(NODES)
    assert str(caught.value) == message


def test_values_give_each_node_its_place_in_the_job() -> None:
    found = Target("nodes", names=("n3", "n2")).values(NODES, JOB)
    assert found == [Values("41", "ada", "motif", "n2", 1), Values("41", "ada", "motif", "n3", 2)]


@pytest.mark.parametrize(
    ("src", "dest", "path"),
    [
        ("a/hits.txt", "results/", "results/hits.txt"),
        ("a/hits.txt", "results", "results"),
        ("log/", "results/", "results"),
        ("log/", "results", "results"),
        ("log/.", "results/", "results"),
        ("log", "results/", "results/log"),
        ("log", ".", "log"),
        ("log", "..", "../log"),
        ("log", "a/..", "log"),
        (".", "results/", "results"),
        ("a", "/", "/a"),
        ("a", "x//y/../b", "x/b"),
    ],
)
def test_landing(src: str, dest: str, path: str) -> None:
    assert landing(src, dest) == path


@pytest.mark.parametrize(("path", "expected"), [("a/", True), ("..", True), ("a/.", True), ("a", False), ("a.", False)])
def test_is_directory_form(path: str, expected: bool) -> None:
    assert is_directory_form(path) is expected


@pytest.mark.parametrize(
    "header",
    [
        ["#STAGE out hits-%N.txt results/"],
        ["#STAGE out log/ results/logs-%N/ on=always"],
        ["#STAGE out hits.txt results/%n/"],
        ["#STAGE out hits.txt results/hits.txt from=first"],
        ["#STAGE out a r/x from=n1", "#STAGE out b r/y from=n1"],
        ["#STAGE out a r/x from=n1 on=success", "#STAGE out b r/x from=n1 on=failure"],
        ["#STAGE out a . from=n1", "#STAGE out b . from=n1"],
        ["#STAGE in a x to=first", "#STAGE in b x to=rank:1"],
        ["#STAGE in a .", "#STAGE in b ."],
        ["#STAGE in a %N", "#STAGE in b n1 to=n2"],
    ],
)
def test_what_does_not_clash(header: list[str]) -> None:
    assert clashes(*header) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "out hits.txt results/",
            "3 nodes would write the same results/hits.txt; put %N in the destination name, as in results/hits-%N.txt",
        ),
        ("out hits-%N.txt results", "3 nodes would write the same results; put %N in the destination name, as in"),
        ("out log/ logs/", "would write the same logs; put %N in the destination name, as in logs-%N/"),
        ("out log/ .", "would write the same .; put %N in the destination name, as in ./%N/"),
        ("out hits.txt r/%j.txt", "would write the same r/41.txt; put %N in the destination name, as in r/%j-%N.txt"),
        ("out a 'my r/x.txt'", "in the destination name, as in 'my r/x-%N.txt'"),
        ("out hits.txt r/%%N", "would write the same r/%N;"),
        ("out a b from=n[2-3]", "2 nodes would write the same b;"),
        ("in a b to=n7", "n7 is not a node of this job; choose from n[1-3]"),
        ("out a b from=rank:5", "there is no rank 5 in a job of 3 nodes"),
    ],
)
def test_a_line_that_is_wrong_by_itself(line: str, message: str) -> None:
    ((number, found),) = clashes(f"#STAGE {line}")
    assert number == 2
    assert message in found


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("out a r/x from=first", "out b r/x from=first", "line 2 already writes r/x; give one of the two another"),
        ("out a r/x from=n1", "out b r/x from=n2", "line 2 already writes r/x"),
        ("out x r/ from=n1", "out b ./r/x from=n1", "line 2 already writes r/x"),
        ("out a r/x from=n1 on=always", "out b r/x from=n1 on=failure", "line 2 already writes r/x"),
        ("out a-%N r/", "out b r/a-n3 from=n3", "line 2 already writes r/a-n3"),
        ("in a x", "in b x to=n2", "line 2 already puts x on n2; give one of the two another destination"),
        ("in a/x data/", "in b data/x to=first", "line 2 already puts data/x on n1"),
        ("in a %N", "in b n2 to=n2", "line 2 already puts n2 on n2"),
    ],
)
def test_two_lines_that_clash(first: str, second: str, message: str) -> None:
    ((number, found),) = clashes(f"#STAGE {first}", f"#STAGE {second}")
    assert number == 3
    assert message in found


def test_directories_themselves_land_inside_their_destination() -> None:
    def found(*lines: str) -> list[str]:
        script, problems = parse("\n".join(["#!/bin/sh", *(f"#STAGE in {line}" for line in lines)]), "job.sh")
        assert problems == []
        return [p.message for p in conflicts(script, ("n1",), JOB, lambda src: src.startswith("d"))]

    assert found("d x", "d2 x", "d/ y") == []
    assert found("d x", "f x/d") == ["line 2 already puts x/d on n1"]
    assert found("d/ x", "d2/ x") == ["line 2 already puts x on n1"]
    assert found("a x", "b x") == ["line 2 already puts x on n1"]


def test_an_absolute_destination_inside_the_scratch_directory() -> None:
    found = clashes("#STAGE scratch /s/%j/", "#STAGE in a x", "#STAGE in b /s/41/x to=n3")
    assert [(line, message.partition(";")[0]) for line, message in found] == [(4, "line 3 already puts /s/41/x on n3")]


def test_conflicts_come_in_line_order_and_one_node_needs_no_pattern() -> None:
    header = ("#STAGE out a r", "#STAGE in a x", "#STAGE in b x", "#STAGE out a r2")
    assert [line for line, _ in clashes(*header)] == [2, 4, 5]
    assert [line for line, _ in clashes(*header, nodes=("n1",))] == [4]


@given(st.from_regex(r"[a-z/.]{1,6}", fullmatch=True), st.from_regex(r"[a-z/.]{1,6}", fullmatch=True))
def test_following_the_advice_removes_the_clash(src: str, dest: str) -> None:
    script, problems = parse(f"#!/bin/sh\n#STAGE out {src} {dest}", "job")
    if problems:
        return
    (problem,) = conflicts(script, NODES, JOB)
    advice = problem.remedy.rpartition(" ")[2]
    script, problems = parse(f"#!/bin/sh\n#STAGE out {src} {advice}", "job")
    assert problems == []
    assert conflicts(script, NODES, JOB) == []
