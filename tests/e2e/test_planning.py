"""pcp --plan sends nothing; topology files and disjoint trees on a real cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli

TOPOLOGY = "SwitchName=s1 Nodes=n[1-2]\nSwitchName=s2 Nodes=n3\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def test_a_plan_is_drawn_and_nothing_is_sent(here: Cli, spot: Any, file: Path) -> None:
    done = here.pcp("--plan", "-f", "double", "--link", "200M", file, f"{spot.dest}/f", "n[1-4]")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("double, 4 nodes, depth 3\nstripe 0:\nsource -> n1\n")
    assert "1.0 MiB to each in blocks of 64.0 KiB: about 0.0" in done.out
    assert all(spot.names(node) == [] for node in spot.nodes)


def test_the_plan_is_what_the_copy_then_does(here: Cli, spot: Any, file: Path) -> None:
    words = ("--json", file, f"{spot.dest}/f", "n[1-4]")
    plan = json.loads(here.pcp("--plan", *words).out)
    done = here.pcp(*words)
    (start,) = done.of_type("transfer-start")
    assert (plan["type"], plan["schema"]) == ("plan", 1)
    assert (start["detail"], start["nodes"], start["bytes"]) == (plan["shape"], plan["nodes"], plan["bytes"])


@pytest.mark.parametrize("shape", ["trees:3", "chain", "auto"])
def test_copies_along_a_topology(here: Cli, spot: Any, file: Path, tmp_path: Path, shape: str) -> None:
    (tmp_path / "topology.conf").write_text(TOPOLOGY)
    words = ("--topology", tmp_path / "topology.conf", "-f", shape, file, f"{spot.dest}/f", "n[1-4]")
    done = here.pcp("--json", *words)
    assert done.code == 0, done.err
    assert [event["message"] for event in done.of_type("note")] == [
        "not in the topology, so taken as below one switch of their own: n4"
    ]
    assert all(spot.on(node, "f").read_bytes() == file.read_bytes() for node in spot.nodes)


def test_a_bad_topology_stops_the_command_before_it_begins(here: Cli, spot: Any, file: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("SwitchName=a Nodes=n1\nSwitchName=b Nodes=n1\n")
    done = here.pcp("--topology", tmp_path / "t", file, f"{spot.dest}/f", "n1")
    assert done.code == 2
    assert done.err == f"pcp: {tmp_path / 't'}, line 2: node n1 is under a already; name it once\n"
    assert spot.names("n1") == []
