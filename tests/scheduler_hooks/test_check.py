"""scheduler_hooks.check: sources and destinations on a real file system, and how problems are printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scheduler_hooks.check import check_destinations, check_sources, render, require
from scheduler_hooks.directives import parse
from scheduler_hooks.jobscript import JobScript, Problem
from scheduler_hooks.patterns import Values
from staging.mover.errors import UsageError

NODES = ("n1", "n2")
JOB = Values("41", "ada", "motif")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory to work in: genome.fa, motif.txt, part-n1, two words, params/ with a.toml, a dangling link."""
    for name in ("genome.fa", "motif.txt", "part-n1", "two words"):
        (tmp_path / name).write_text("x")
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "a.toml").write_text("x")
    (tmp_path / "lost").symlink_to("nowhere")
    return tmp_path


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Paths that os.access forbids, since the tests may run as root, who may do anything."""
    paths: set[Path] = set()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in paths and real(path, mode))
    return paths


def script(*directives: str) -> JobScript:
    found, problems = parse("\n".join(["#!/bin/sh", *(f"#STAGE {line}" for line in directives)]), "job.sh")
    assert problems == []
    return found


def text(problems: list[Problem]) -> str:
    return render(problems, "job.sh")


@pytest.mark.parametrize(
    "src", ["genome.fa", "params", "params/", "./params/a.toml", "%x.txt", ".", "params/../params"]
)
def test_sources_that_are_there(base: Path, src: str) -> None:
    assert check_sources(script(f"in {src} x"), base, JOB) == []


def test_an_absolute_source(base: Path) -> None:
    assert check_sources(script(f"in {base}/genome.fa x"), Path("/"), JOB) == []


@pytest.mark.parametrize(
    ("src", "line"),
    [
        ("genom.fa", "genom.fa does not exist; write genome.fa"),
        ("param/a.toml", "param/a.toml does not exist; write params/a.toml"),
        ("params/b.toml", "params/b.toml does not exist; write params/a.toml"),
        ("twowords", "twowords does not exist; write 'two words'"),
        ("params/zzz", "params/zzz does not exist; write the name of something in {base}/params"),
        ("genome.fa/x", "genome.fa/x does not exist; write another path, as {base}/genome.fa is a file"),
        ("{base}/genom.fa", "{base}/genom.fa does not exist; write genome.fa"),
        ("genome.fa/", "genome.fa/ is a file, not a directory; write genome.fa"),
        ("lost", "lost is a symbolic link to nothing; repair the link, or name another source"),
        ("%x.tx", "motif.tx does not exist; write motif.txt"),
        ("a" * 300, "a" * 300 + " cannot be read: File name too long; name a source that can"),
    ],
)
def test_sources_that_are_not(base: Path, src: str, line: str) -> None:
    src, line = src.replace("{base}", str(base)), line.replace("{base}", str(base))
    assert text(check_sources(script("nodes 2", f"in {src} x"), base, JOB)) == f"job.sh:3: {line}"


@pytest.mark.parametrize(("src", "mode"), [("genome.fa", "r"), ("params", "rx")])
def test_an_unreadable_source(base: Path, locked: set[Path], src: str, mode: str) -> None:
    locked.add(base / src)
    expected = f"job.sh:2: you may not read {src}; allow it with chmod u+{mode}, or name another source"
    assert text(check_sources(script(f"in {src} x"), base, JOB)) == expected


def test_a_name_is_not_looked_for_in_a_directory_that_cannot_be_listed(base: Path, locked: set[Path]) -> None:
    locked.add(base)
    assert f"write the name of something in {base}" in text(check_sources(script("in genom.fa x"), base, JOB))


def test_a_source_per_node(base: Path) -> None:
    each = script("in part-%N x")
    assert text(check_sources(each, base, JOB, NODES)) == "job.sh:2: part-n2 does not exist; write part-n1"
    assert check_sources(each, base, JOB) == []
    assert check_sources(script("in part-%N x to=first"), base, JOB, NODES) == []
    assert "no rank 5" in text(check_sources(script("in part-%N x to=rank:5"), base, JOB, NODES))


@pytest.mark.parametrize(
    "line", ["out a results/", "out a new/deep/%N/", "out a/ params/", "out a params", "out a genome.fa", "out a ."]
)
def test_destinations_that_can_be_written(base: Path, line: str) -> None:
    assert check_destinations(script(line), base, NODES, JOB) == []


@pytest.mark.parametrize("line", ["out a genome.fa/", "out a/ genome.fa", "out a genome.fa/deep/%N.txt"])
def test_a_destination_below_a_file(base: Path, line: str) -> None:
    expected = "job.sh:2: genome.fa is a file, not a directory; remove it, or write another destination"
    assert text(check_destinations(script(line), base, NODES, JOB)) == expected


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        ("out a params/", "params"),
        ("out a/ params", "params"),
        ("out a params", "params"),
        ("out a params/x/y-%N", "params"),
        ("out a genome.fa", "."),
        ("out a new/", "."),
    ],
)
def test_a_destination_that_may_not_be_written(base: Path, locked: set[Path], line: str, forbidden: str) -> None:
    locked.add(base / forbidden)
    expected = f"job.sh:2: you may not write in {base / forbidden}; write a destination in a directory of yours"
    assert text(check_destinations(script(line), base, NODES, JOB)) == expected


def test_only_the_nodes_that_are_meant_are_looked_at(base: Path, locked: set[Path]) -> None:
    (base / "n2").mkdir()
    locked.add(base / "n2")
    assert check_destinations(script("out a %N/ from=n1"), base, NODES, JOB) == []
    assert len(check_destinations(script("out a %N/"), base, NODES, JOB)) == 1
    assert "n7 is not a node" in text(check_destinations(script("out a b from=n7"), base, NODES, JOB))


def test_render_sorts_drops_repeats_and_escapes() -> None:
    problems = [Problem(9, "a", "b"), Problem(2, "bad \x1b[1m\udcff\n", "é"), Problem(9, "a", "b")]
    assert render(problems, "job.sh") == "job.sh:2: bad \\x1b[1m\\xff\\n; é\njob.sh:9: a; b"


def test_require() -> None:
    require([], "job.sh")
    with pytest.raises(UsageError) as caught:
        require([Problem(2, "a", "b"), Problem(3, "c", "d")], "job.sh")
    assert str(caught.value) == "job.sh:2: a; b\njob.sh:3: c; d"
    assert caught.value.exit_code == 2
