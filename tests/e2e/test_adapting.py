"""Broadcasts on hosts whose links and nodes get into trouble: the rest goes on, who comes late is taken in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.polling import until
from tests.hosts import Cluster
from tests.hosts.fixtures import Hosts

BIN = Path(sys.executable).parent
MIB = 1 << 20
RATE = "80mbit"
SECONDS = 90.0


@pytest.fixture(scope="module")
def six(hosts: Hosts) -> Cluster:
    cluster = hosts(6, rate=RATE, sshd=True)
    cluster.head.path("/scratch/data").write_bytes(os.urandom(24 * MIB))
    return cluster


@pytest.fixture
def cluster(six: Cluster) -> Iterator[Cluster]:
    """Six hosts with a staging cluster on them."""
    up(six)
    yield six
    for host in six.nodes:
        six.heal(host.name)
        six.rate(host.name, RATE)
        host.run(["find", "/scratch", "-mindepth", "1", "-delete"])
    assert stage(six, "down").returncode == 0


def up(cluster: Cluster) -> None:
    done = stage(cluster, "up", "--hosts", "n[1-6]")
    assert done.returncode == 0, done.stderr


def stage(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    return cluster.head.run([BIN / "stage", *words], check=False, cwd="/root")


def service_of(cluster: Cluster, node: str) -> int:
    """The pid of a node's service, on its host."""
    nodes = json.loads(stage(cluster, "status", "--json").stdout)["nodes"]
    return next(int(n["pid"]) for n in nodes if n["name"] == node)


def state(cluster: Cluster, node: str) -> str:
    nodes = json.loads(stage(cluster, "status", "--json").stdout)["nodes"]
    return next(str(n["state"]) for n in nodes if n["name"] == node)


@dataclass
class Copy:
    """A broadcast on its way."""

    cluster: Cluster
    process: subprocess.Popen[str]

    def events(self) -> list[dict[str, Any]]:
        """What it has said so far; whole lines only."""
        text = self.cluster.head.path("/root/events").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def bytes_of(self, node: str) -> int:
        said = [e["bytes"] for e in self.events() if e["type"] == "progress" and e["node"] == node]
        return int(said[-1]) if said else 0

    def until_has(self, node: str, mib: int) -> None:
        until(f"{node} has {mib} MiB", lambda: self.bytes_of(node) > mib * MIB, SECONDS)

    def end(self) -> int:
        return self.process.wait(SECONDS)

    def arrived(self) -> list[str]:
        """The nodes that say that they have it, which is compared."""
        want = self.cluster.head.path("/scratch/data").read_bytes()
        names = [e["node"] for e in self.events() if e["type"] == "node-done"]
        for name in names:
            assert self.cluster[name].path("/scratch/data").read_bytes() == want
        return sorted(names)

    def notes(self, node: str) -> list[str]:
        return [e["message"] for e in self.events() if e["type"] == "note" and e["node"] == node]


def copy(cluster: Cluster, *words: str, nodes: str = "n[1-6]") -> Copy:
    with cluster.head.path("/root/events").open("w") as events:
        argv = [BIN / "pcp", "--json", *words, "/scratch/data", "/scratch/data", nodes]
        return Copy(cluster, cluster.head.popen(argv, cwd="/root", stdout=events, stderr=subprocess.DEVNULL, text=True))


@pytest.mark.parametrize("shape", ["chain", "double"])
def test_a_slow_node_does_not_hold_up_the_others(cluster: Cluster, shape: str) -> None:
    cluster.rate("n2", "8mbit")
    running = copy(cluster, "-f", shape)
    others = ["n1", "n3", "n4", "n5", "n6"]
    until("the others have it", lambda: running.arrived() == others, SECONDS)
    assert running.bytes_of("n2") < 16 * MIB  # behind it they would have no more
    cluster.rate("n2", RATE)
    assert running.end() == 0
    assert running.arrived() == ["n1", "n2", *others[1:]]
    assert "slow; the others go on without waiting for it" in running.notes("n2")


def test_a_node_that_comes_late_is_taken_in(cluster: Cluster) -> None:
    cluster["n4"].run(["kill", "-KILL", str(service_of(cluster, "n4"))])
    until("the head knows", lambda: state(cluster, "n4") == "down")
    cluster.rate("n6", "4mbit")  # so that somebody is at work for long enough
    running = copy(cluster)
    running.until_has("n1", 4)
    up(cluster)
    until("it has everything", lambda: "n4" in running.arrived(), SECONDS)
    cluster.rate("n6", RATE)
    assert running.end() == 0
    assert running.arrived() == [f"n{k}" for k in range(1, 7)]


def test_a_node_that_is_lost_and_comes_back_goes_on_where_it_was(cluster: Cluster) -> None:
    cluster.rate("n6", "4mbit")
    running = copy(cluster, "-f", "chain")
    running.until_has("n3", 4)
    cluster["n3"].run(["kill", "-KILL", str(service_of(cluster, "n3"))])
    until("it is noticed", lambda: running.notes("n3"), SECONDS)
    assert "n3 (" in running.notes("n3")[0]
    assert running.notes("n3")[0].endswith("was lost; it is taken back if it returns")
    up(cluster)
    until("it has everything", lambda: "n3" in running.arrived(), SECONDS)
    cluster.rate("n6", RATE)
    assert running.end() == 0
    assert running.arrived() == [f"n{k}" for k in range(1, 7)]
    (done,) = (e for e in running.events() if e["type"] == "node-done" and e["node"] == "n3")
    assert done["reused"] > 2 * MIB


def test_a_lost_node_costs_its_own_line(cluster: Cluster) -> None:
    running = copy(cluster, "-f", "chain")
    running.until_has("n3", 4)
    cluster["n3"].run(["kill", "-KILL", str(service_of(cluster, "n3"))])
    assert running.end() == 3
    assert running.arrived() == ["n1", "n2", "n4", "n5", "n6"]


def test_a_link_that_is_cut_for_a_while_costs_nobody_anything(cluster: Cluster) -> None:
    running = copy(cluster, "-f", "chain")
    running.until_has("n2", 4)
    cluster.cut("n2")
    running.until_has("n6", 12)
    cluster.heal("n2")
    assert running.end() == 0
    assert running.arrived() == [f"n{k}" for k in range(1, 7)]


def test_the_source_sends_the_file_once(cluster: Cluster) -> None:
    before = cluster.head.sent()
    running = copy(cluster)
    assert running.end() == 0
    assert running.arrived() == [f"n{k}" for k in range(1, 7)]
    assert cluster.head.sent() - before < 1.1 * 24 * MIB


def test_a_stopped_relay_is_passed_by(cluster: Cluster) -> None:
    running = copy(cluster, "-f", "chain")
    running.until_has("n2", 4)
    movers = cluster["n2"].run(["pgrep", "-x", "stage-mover"]).stdout.split()
    cluster["n2"].run(["kill", f"-{signal.SIGSTOP}", *movers])
    running.until_has("n6", 12)
    cluster["n2"].run(["kill", f"-{signal.SIGCONT}", *movers])
    assert running.end() == 0
    assert running.arrived() == [f"n{k}" for k in range(1, 7)]
