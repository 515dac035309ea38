"""Slurm on the test cluster: real daemons, jobs of a user, a node that loses power and comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts import slurm
from tests.hosts.fixtures import Hosts


@pytest.fixture(scope="module")
def testbed(hosts: Hosts) -> Iterator[slurm.Slurm]:
    lacks = slurm.missing()
    if lacks:
        pytest.skip(f"Slurm on a cluster of hosts needs {', '.join(lacks)}")
    with slurm.Slurm(hosts(2, munged=True, users=True), settings="MessageTimeout=20") as testbed:
        yield testbed


def test_a_users_job_runs_on_both_nodes(testbed: slurm.Slurm) -> None:
    job = testbed.submit("#!/bin/sh\nid -un\nsrun hostname\n", user="alice", nodes=2)
    assert testbed.wait(job) == "COMPLETED"
    out = testbed.cluster["n1"].path(f"/tmp/{job}.out").read_text().split()
    assert out[0] == "alice"
    assert sorted(out[1:]) == ["n1", "n2"]
    testbed.wait_idle()


def test_settings_are_lines_of_the_configuration(testbed: slurm.Slurm) -> None:
    shown = testbed.cluster["n2"].run(["scontrol", "show", "config"]).stdout
    assert "MessageTimeout          = 20 sec" in shown


def test_an_allocation_takes_sbcast_and_is_cancelled(testbed: slurm.Slurm) -> None:
    cluster = testbed.cluster
    cluster.head.path("/scratch/file").write_bytes(b"right" * 1000)
    job = testbed.allocate(2)
    cluster.head.run(["sbcast", f"--jobid={job}", "/scratch/file", "/scratch/copy"])
    assert [node.path("/scratch/copy").read_bytes() for node in cluster.nodes] == [b"right" * 1000] * 2
    testbed.cancel(job)
    assert testbed.wait(job) == "CANCELLED"
    testbed.wait_idle()


def test_a_node_that_booted_again_is_idle_again(testbed: slurm.Slurm) -> None:
    cluster = testbed.cluster
    cluster.crash("n2")
    cluster.boot("n2")
    testbed.start(cluster["n2"])
    testbed.wait_idle()
    job = testbed.submit("#!/bin/sh\nhostname\n", user="bob", options=["--nodelist=n2"])
    assert testbed.wait(job) == "COMPLETED"
    cluster.crash("n2")  # what was started in this test shall not outlive it
