"""scheduler_hooks.staging_plan: which copies the directives become."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scheduler_hooks.directives import parse
from scheduler_hooks.job import Job, JobNode
from scheduler_hooks.staging_plan import due, inward, outward
from staging.mover.errors import UsageError

NODES = tuple(JobNode(f"n{number}", number - 1, f"127.0.0.{number + 1}") for number in (1, 2, 3))
S = "/scratch/stage-7"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "p").write_bytes(b"x" * 3000)
    (tmp_path / "genome.fa").write_bytes(b"y" * 5000)
    for name in ("n1", "n2", "n3"):
        (tmp_path / f"part-{name}").write_bytes(b"z")
    return tmp_path


def job(base: Path, *directives: str) -> Job:
    script, problems = parse("\n".join(["#!/bin/sh", *(f"#STAGE {line}" for line in directives)]), "job.sh")
    assert not problems
    return Job("7", "job.sh", "ada", str(base), NODES, script)


def summary(base: Path, *directives: str) -> list[tuple[str, str, bool, str, str, str]]:
    return [
        (
            copy.label,
            os.path.relpath(copy.source, base),
            copy.contents,
            copy.dest,
            copy.into,
            ",".join(n.name for n in copy.nodes),
        )
        for copy in inward(job(base, *directives))
    ]


ALL = "n1,n2,n3"


@pytest.mark.parametrize(
    ("directive", "copy"),
    [
        ("in genome.fa genome.fa", ("in:2", "genome.fa", False, f"{S}/genome.fa", "auto", ALL)),
        ("in genome.fa data/", ("in:2", "genome.fa", False, f"{S}/data/", "auto", ALL)),
        ("in params/ p/", ("in:2", "params", True, f"{S}/p/", "auto", ALL)),
        ("in params p", ("in:2", "params", False, f"{S}/p", "always", ALL)),
        ("in . here", ("in:2", ".", True, f"{S}/here", "auto", ALL)),
        ("in genome.fa /data/g to=first", ("in:2", "genome.fa", False, "/data/g", "auto", "n1")),
        ("in genome.fa g to=rank:2", ("in:2", "genome.fa", False, f"{S}/g", "auto", "n3")),
        ("in genome.fa g to=n[2-3]", ("in:2", "genome.fa", False, f"{S}/g", "auto", "n2,n3")),
    ],
)
def test_one_in_is_one_broadcast(base: Path, directive: str, copy: object) -> None:
    assert summary(base, directive) == [copy]


def test_an_in_that_differs_from_node_to_node_is_a_copy_for_each(base: Path) -> None:
    assert summary(base, "in part-%N part") == [
        (f"in:2.{rank}", f"part-n{rank + 1}", False, f"{S}/part", "auto", f"n{rank + 1}") for rank in range(3)
    ]
    assert [copy[3] for copy in summary(base, "in genome.fa g-%n")] == [f"{S}/g-0", f"{S}/g-1", f"{S}/g-2"]


def test_direct_lets_the_source_feed_every_node_and_what_is_not_there_yet_is_named_with_its_line(base: Path) -> None:
    assert inward(job(base, "in genome.fa g via=direct"))[0].shape() == "tree:3"
    assert inward(job(base, "in genome.fa g via=direct to=first"))[0].shape() == "auto"
    assert inward(job(base, "in genome.fa g via=tree"))[0].shape() == "auto"
    with pytest.raises(UsageError, match=r"job\.sh:3: via=multicast is not available yet; write via=auto"):
        inward(job(base, "nodes 3", "in genome.fa g via=multicast"))


def test_an_out_is_one_copy_from_each_node(base: Path) -> None:
    (out,) = outward(job(base, "out log/ results/logs-%N/ on=always"))
    assert (out.label, out.line, out.what, out.method, out.on) == ("out:2", 2, "log/", "ticket", "always")
    assert [(p.node.name, p.source, p.contents, os.path.relpath(p.dest, base)) for p in out.parts] == [
        (name, f"{S}/log/", True, f"results/logs-{name}") for name in ("n1", "n2", "n3")
    ]
    assert all(part.dest.endswith("/") for part in out.parts)


def test_an_out_from_some_nodes_and_by_the_direct_way(base: Path) -> None:
    (out,) = outward(job(base, "out /tmp/hits-%N.txt %j.txt from=rank:1 via=direct"))
    assert out.method == "direct"
    assert [(p.node.name, p.source, p.dest) for p in out.parts] == [("n2", "/tmp/hits-n2.txt", f"{base}/7.txt")]


@pytest.mark.parametrize(
    ("on", "after_success", "after_failure"),
    [("success", True, False), ("failure", False, True), ("always", True, True)],
)
def test_due(on: str, after_success: bool, after_failure: bool) -> None:
    assert due(on, 0) is after_success
    assert due(on, 1) is due(on, 137) is after_failure
