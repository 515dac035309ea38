"""Clusters of real hosts: `stage up --hosts` over real sshds, on hosts that are namespaces of this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.embedded import STOP_SECONDS
from support.polling import until
from tests.hosts import Cluster
from tests.hosts.fixtures import Hosts
from tests.hosts.host import Host

BIN = Path(sys.executable).parent
GONE_WITHIN = 30.0
JOB = """#!/bin/sh
#STAGE nodes 3
#STAGE in  data    data
#STAGE out out-%N  results/  from=all
stage each -- sh -c 'hostname > "$STAGE_DIR/out-%N"; wc -c < "$STAGE_DIR/data" >> "$STAGE_DIR/out-%N"'
"""


@pytest.fixture(scope="module")
def three(hosts: Hosts) -> Cluster:
    return hosts(3, sshd=True)


@pytest.fixture
def cluster(three: Cluster) -> Iterator[Cluster]:
    """Three hosts and a head; at the end no cluster of ours may be left on them, nor what one has put there."""
    yield three
    stage(three, "down")
    for host in three.hosts.values():
        until(f"nothing of ours on {host.name}", lambda host=host: not left(host), GONE_WITHIN)


def stage(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    return cluster.head.run([BIN / "stage", *words], check=False, cwd="/root")


def up(cluster: Cluster, spec: str, *words: str) -> subprocess.CompletedProcess[str]:
    return stage(cluster, "up", "--hosts", spec, *words)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(done.stderr.splitlines())


def left(host: Host) -> list[str]:
    """What there is of ours on a host: processes, and what is not ours to leave in /tmp."""
    running = host.run(["ps", "-eo", "comm="]).stdout.split()
    return [name for name in running if name.startswith("stage-")] + host.run(["ls", "-A", "/tmp"]).stdout.split()


def test_a_cluster_from_its_start_to_its_end(cluster: Cluster) -> None:
    head = cluster.head
    done = up(cluster, "n[1-3]")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stderr.splitlines()[:3]) == ["n1: up", "n2: up", "n3: up"]
    status = json.loads(stage(cluster, "status", "--json").stdout)
    assert [(n["name"], n["state"], n["root"]) for n in status["nodes"]] == [(f"n{k}", "up", "") for k in (1, 2, 3)]
    for node in status["nodes"]:  # each listens where it is reached, and nowhere else
        host = cluster[node["name"]]
        assert node["address"] in (host.address, host.address6)
        ports = host.run(["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"]).stdout
        wild = [row.split()[1] for row in ports.splitlines() if " 0A " in row and set(row.split()[1][:-5]) == {"0"}]
        assert {address[-4:] for address in wild} <= {"0016"}  # sshd
    again = up(cluster, "n[1-3]")
    assert (again.returncode, again.stderr.splitlines()[0][:12]) == (0, "3 nodes up i")
    head.path("/root/data").write_bytes(b"x" * 300_000)
    copied = head.run([BIN / "pcp", "/root/data", "/scratch/data", "n[1-3]"], check=False)
    assert copied.returncode == 0, copied.stderr
    assert all(cluster[f"n{k}"].path("/scratch/data").stat().st_size == 300_000 for k in (1, 2, 3))
    head.path("/root/job.sh").write_text(JOB)
    ran = stage(cluster, "run", "job.sh")
    assert ran.returncode == 0, ran.stderr
    assert head.path("/root/results/out-n2").read_text() == "n2\n300000\n"
    began = time.monotonic()
    down = stage(cluster, "down")
    assert (down.returncode, down.stderr) == (0, "the cluster has ended\n")
    assert time.monotonic() - began < STOP_SECONDS
    # nothing is waited for: `down` returns when nothing is left
    assert {host.name: left(host) for host in cluster.hosts.values() if left(host)} == {}


def test_secrets_are_in_private_files_only(cluster: Cluster) -> None:
    assert up(cluster, "n1").returncode == 0
    host = cluster["n1"]
    modes = host.run(["find", "/tmp/longshore-0", "-printf", "%y %m %f\n"]).stdout.split("\n")
    assert "f 600 key.pem" in modes
    assert not [line for line in modes if line and not line.startswith("s ") and line.split()[1][-2:] != "00"]
    secret = host.run(["sh", "-c", "cat /tmp/longshore-0/*/keys/key.pem"]).stdout.splitlines()[1]
    assert len(secret) > 40
    arguments = host.run(["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"], text=False).stdout
    assert secret.encode() not in arguments
    assert secret not in host.run(["sh", "-c", "cat /tmp/longshore-0/*/log/*"]).stdout


@pytest.mark.slow
def test_a_host_that_is_cut_off_costs_its_own_line(cluster: Cluster) -> None:
    cluster.cut("n3")
    try:
        began = time.monotonic()
        done = up(cluster, "n[1-3]", "--connect-timeout", "2")
        assert time.monotonic() - began < 20
    finally:
        cluster.heal("n3")
    assert done.returncode == 3
    assert "n3: no answer from n3 port 22 within 2 s; is the host up?" in lines(done)
    assert "stage: 2 of 3 nodes are up; mend what their lines name, then give the same command again" in lines(done)
    # a host that was away may stay out of reach for a moment, until its neighbours ask for it again
    mended = until("the same command does the rest", lambda: _succeeded(up(cluster, "n[1-3]")), GONE_WITHIN)
    assert lines(mended)[-1] == "n3: up"


def _succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str] | None:
    return done if done.returncode == 0 else None


@pytest.mark.slow
def test_what_a_host_lacks_is_said(cluster: Cluster) -> None:
    none = up(cluster, "n1", "--python", "/usr/bin/env")
    assert none.returncode == 1
    assert lines(none)[0].startswith("n1: longshore does not start there (exit code ")
    absent = up(cluster, "n1", "--python", "/absent/python")
    assert absent.returncode == 2
    assert lines(absent)[0].startswith("n1: there is no /absent/python")
    cluster["n2"].run(["mkdir", "-m", "777", "/tmp/longshore-0"])
    cluster["n2"].run(["chmod", "777", "/tmp/longshore-0"])
    shared = up(cluster, "n2")
    assert (shared.returncode, lines(shared)[0]) == (
        7,
        "n2: others have access to /tmp/longshore-0; run chmod 700 /tmp/longshore-0",
    )
    cluster["n2"].run(["rmdir", "/tmp/longshore-0"])
    cluster["n3"].run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/tmp"])
    full = up(cluster, "n3")
    cluster["n3"].run(["umount", "/tmp"])
    assert full.returncode == 8
    assert lines(full)[0].endswith("No space left on device; free space there, or give --node-dir")


def test_unknown_hosts_and_closed_ports_are_refused(cluster: Cluster) -> None:
    config = "Host stranger\n HostName n1\n UserKnownHostsFile /root/known\n GlobalKnownHostsFile /dev/null\n"
    config += "Host closed\n HostName n2\n Port 9\nHost locked\n HostName n3\n IdentityFile /dev/null\n"
    cluster.head.path("/root/config").write_text(config)
    done = up(cluster, "stranger,closed,locked,nobodys", "--ssh-config", "/root/config")
    assert done.returncode == 3
    said = {line.split(":")[0]: line for line in lines(done)}
    assert said["stranger"].startswith("stranger: its host key is not known (ssh-")
    assert said["stranger"].endswith("then add n1 to /root/known (ssh-keyscan, or log in once by ssh)")
    assert said["closed"] == "closed: cannot reach n2 port 9: Connection refused; are host and sshd up?"
    assert said["locked"] == "locked: ssh does not let root in by key; try `ssh root@n3`, or load the agent"
    assert said["nobodys"].startswith("nobodys: nobodys cannot be resolved")
    assert said["stage"] == "stage: 0 of 4 nodes are up; mend what their lines name, then give the same command again"


@pytest.mark.slow
def test_hosts_behind_another_and_by_a_command(cluster: Cluster) -> None:
    known = "Host *\n GlobalKnownHostsFile /etc/ssh/ssh_known_hosts\n IdentityFile ~/.ssh/id_ed25519\n"
    config = "Host n2\n ProxyJump n1\nHost n3\n ProxyCommand ssh -W %h:%p n1\n" + known
    cluster.head.path("/root/config").write_text(config)
    done = up(cluster, "n[1-3]", "--ssh-config", "/root/config")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_addresses_decide_the_family(cluster: Cluster) -> None:
    file = cluster.head.path("/root/hosts")
    cluster["n1"].run(["mkdir", "-p", "/root/nodes"])
    file.write_text(f"a={cluster['n1'].address}\n")
    assert up(cluster, "/root/hosts", "--node-dir", "/root/nodes").returncode == 0
    node = json.loads(stage(cluster, "status", "--json").stdout)["nodes"][0]
    assert (node["name"], node["address"]) == ("a", cluster["n1"].address)
    assert cluster["n1"].run(["ls", "/tmp"]).stdout == ""
    stage(cluster, "down")
    assert cluster["n1"].run(["ls", "-A", "/root/nodes"]).stdout == ""


@pytest.mark.slow
def test_nodes_end_with_a_head_that_is_killed(cluster: Cluster) -> None:
    assert up(cluster, "n[1-3]").returncode == 0
    cluster.head.run(["sh", "-c", "kill -9 $(pgrep -x stage-head)"])
    for host in cluster.nodes:
        until("its end", lambda host=host: not left(host), GONE_WITHIN)


@pytest.mark.slow
def test_nodes_end_with_a_head_that_is_cut_off(cluster: Cluster) -> None:
    assert up(cluster, "n1").returncode == 0
    cluster.cut("n1")
    try:
        until("its end", lambda: not left(cluster["n1"]), 2 * GONE_WITHIN)
        assert stage(cluster, "status").stdout.count("down") == 1
    finally:
        cluster.heal("n1")
    until("it is there again", lambda: _succeeded(up(cluster, "n1")), GONE_WITHIN)


@pytest.mark.slow
def test_down_names_a_node_of_whose_end_nothing_is_heard(cluster: Cluster) -> None:
    assert up(cluster, "n[1-2]").returncode == 0
    cluster.cut("n2")
    try:
        down = stage(cluster, "down")
    finally:
        cluster.heal("n2")
    assert down.returncode == 3
    assert down.stderr.startswith("stage: the head has ended, but nothing was heard of the end of n2; ")
    assert left(cluster.head) == left(cluster["n1"]) == []


@pytest.mark.slow
def test_what_a_killed_service_left_is_swept(cluster: Cluster) -> None:
    assert up(cluster, "n1").returncode == 0
    host = cluster["n1"]
    host.run(["sh", "-c", "kill -9 $(pgrep -x stage-node)"])
    until("the end of its processes", lambda: left(host) == ["longshore-0"])
    before = host.run(["ls", "/tmp/longshore-0"]).stdout.split()
    assert up(cluster, "n1").returncode == 0
    after = host.run(["ls", "/tmp/longshore-0"]).stdout.split()
    assert (len(before), len(after)) == (1, 1)
    assert before != after


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("wanted", ["nothing", "stage-head", "sshd session", "stage-worker"])
def test_a_start_that_is_interrupted_leaves_nothing(cluster: Cluster, number: signal.Signals, wanted: str) -> None:
    """Whenever it comes: at once, when the head runs, when a host is reached, when a node is about to join."""

    def reached() -> bool:
        if wanted == "nothing":
            return True
        host = cluster.head if wanted == "stage-head" else cluster["n2"]
        names = host.run(["ps", "-eo", "comm="]).stdout.split()
        return names.count("sshd") > 1 if wanted == "sshd session" else wanted in names

    words = [BIN / "stage", "up", "--hosts", "n[1-3]"]
    with cluster.head.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(wanted, lambda: reached() or process.poll() is not None)
        process.send_signal(number)
        process.wait(GONE_WITHIN)
    if process.returncode == 0:
        pytest.skip("it was faster than the signal")
    for host in cluster.hosts.values():
        until(f"nothing on {host.name}", lambda host=host: not left(host), GONE_WITHIN)
