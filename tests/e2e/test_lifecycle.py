"""Clusters that are started, broken, mended and ended: nothing of them may outlive them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import door, embedded
from cluster.commands.up import SERVICES
from cluster.layout import Layout, personal
from staging.mover.errors import TemporaryError
from support import leaks, trees
from support.cli import Cli
from support.clusters import cluster_processes, embedded_cluster, head_pid, node_pid
from support.polling import until

NOTICED_WITHIN = 10.0  # seconds from the loss of the head to the end of everything

Make = Callable[[Layout | None], Cli]


@pytest.fixture
def layout() -> Iterator[Layout]:
    """Where a test may start a cluster by commands; all of it is gone at the end, however the test ended."""
    layout = Layout(Path(tempfile.mkdtemp(prefix="c")))
    yield layout
    left = cluster_processes(layout)
    for process in left:
        process.kill()
    until("the cluster's end", lambda: not cluster_processes(layout))
    embedded.remove(layout)
    assert not left


@pytest.fixture
def cluster3(watched: leaks.Watched) -> Iterator[Layout]:
    """A cluster of three nodes that the test may break."""
    with embedded_cluster(3, watched) as layout:
        yield layout


def states(layout: Layout) -> dict[str, str]:
    return {n["name"]: n["state"] for n in door.ask(layout, {"op": "status"})["nodes"]}


def test_up_status_up_again_and_down(cli: Make, layout: Layout) -> None:
    run = cli(layout)
    up = run.stage("up", "--local", "2")
    assert (up.code, up.out) == (0, "")
    assert up.err.startswith("2 nodes up in ")
    status = json.loads(run.stage("status", "--json").out)
    assert (status["schema"], status["cluster"], status["pid"]) == (1, str(layout.base), head_pid(layout))
    for number, node in enumerate(status["nodes"], 1):
        name = f"n{number}"
        assert node.pop("pid") in psutil.pids()
        address = f"127.0.0.{number + 1}"
        assert node == {"name": name, "address": address, "state": "up", "root": str(layout.root(name))}
    table = run.stage("status").out.splitlines()
    assert table[0].split() == ["name", "address", "state", "pid", "root"]
    assert [line.split()[:3] for line in table[1:]] == [["n1", "127.0.0.2", "up"], ["n2", "127.0.0.3", "up"]]
    head = head_pid(layout)
    fewer = run.stage("up", "--local", "1")
    assert (fewer.code, fewer.err) == (
        0,
        "2 nodes are up already, more than the 1 asked for; `stage down` ends them all\n",
    )
    assert run.stage("up", "--local", "3").code == 0
    assert head_pid(layout) == head
    assert states(layout) == dict.fromkeys(("n1", "n2", "n3"), "up")
    members = cluster_processes(layout)
    assert len(members) == 1 + 3 * 3  # the head; a service, a launcher and a worker for each node
    ports = leaks.listening(members)
    down = run.stage("down")
    assert (down.code, down.out, down.err) == (0, "", "the cluster has ended\n")
    assert not [process for process in members if leaks.alive(process)]
    assert not ports & leaks.open_ports()
    assert not layout.base.exists()
    assert run.stage("down").code == 5


@pytest.mark.slow
def test_down_may_keep_the_files_and_up_finds_them_again(cli: Make, layout: Layout) -> None:
    run = cli(layout)
    assert run.stage("up", "--local", "1").code == 0
    (layout.root("n1") / "scratch" / "mine").write_text("kept")
    assert run.stage("down", "--keep").err == f"the cluster has ended; its files are kept in {layout.base}\n"
    assert not layout.head_socket.exists()
    assert run.stage("up", "--local", "1").code == 0
    assert (layout.root("n1") / "scratch" / "mine").read_text() == "kept"
    assert run.stage("down").code == 0


@pytest.mark.parametrize("names", [("nodes", "keys", "log"), ("log",)])
def test_up_and_down_leave_a_directory_of_the_users_as_it_is(
    cli: Make, tmp_path: Path, layout: Layout, names: tuple[str, ...]
) -> None:
    for name in names:
        (layout.base / name).mkdir()
        (layout.base / name / "mine").write_text("mine")
    run = cli(None)
    up = run.stage("up", "--local", "1", "--cluster", layout.base)
    assert (up.code, up.out) == (2, "")
    assert "holds other things, such as" in up.err
    assert run.stage("down", "--cluster", layout.base).code == 5
    embedded.remove(layout)
    assert sorted(str(path.relative_to(layout.base)) for path in layout.base.rglob("mine")) == sorted(
        f"{name}/mine" for name in names
    )
    shutil.rmtree(layout.base)


def test_down_leaves_results_that_were_kept(cli: Make, layout: Layout, tmp_path: Path) -> None:
    run = cli(layout)
    assert run.stage("up", "--local", "2").code == 0
    body = "echo result > $STAGE_DIR/f; touch home-n1"
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\n#STAGE out f home-%N/f from=first\n{body}\n")
    assert run.stage("run", "job.sh").code == 3  # all failed by their destination, but the job has run
    (result,) = layout.root("n1").glob("scratch/stage-1/f")
    down = run.stage("down")
    assert (down.code, cluster_processes(layout)) == (0, [])
    assert f"results that were kept are still in {layout.nodes}, rm -r {layout.base} removes them" in down.err
    assert result.read_text() == "result\n"
    assert not layout.keys.exists()
    assert run.stage("up", "--local", "1").code == 0
    shutil.rmtree(result.parent)
    assert run.stage("down").err == "the cluster has ended\n"
    assert not layout.base.exists()


def test_down_leaves_what_was_put_beside_the_cluster(cli: Make, layout: Layout) -> None:
    run = cli(layout)
    assert run.stage("up", "--local", "1").code == 0
    (layout.base / "notes.txt").write_text("mine")
    assert run.stage("down").code == 0
    assert os.listdir(layout.base) == ["notes.txt"]
    shutil.rmtree(layout.base)


def test_a_cluster_is_its_owners_alone(cluster4: Layout) -> None:
    doors = [cluster4.head_socket, *map(cluster4.door, ("n1", "n2", "n3", "n4"))]
    keys = [path for path in cluster4.keys.iterdir() if "BEGIN PUBLIC" not in path.read_text()]
    assert len(keys) >= 2
    for path in (cluster4.base, cluster4.keys, cluster4.logs, cluster4.head_file, *doors, *keys):
        assert path.lstat().st_mode & 0o077 == 0, path
    ports = leaks.listening(cluster_processes(cluster4))
    assert {line.split()[1].split(":")[0][-2:] for line in ports} == {"7F"}  # all of them on 127.*


def test_stage_run_without_a_cluster_has_one_of_its_own_for_as_long_as_it_runs(cli: Make, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/sh\n#STAGE nodes 2\nstage status; stage each -- echo hello; exit 5\n")
    done = cli(None).stage("run", "job.sh")
    assert done.code == 5, done.err
    assert done.out.count(" up ") == 2
    assert done.out.count("hello") == 2
    assert "no cluster is running: starting 2 nodes on this machine for this job" in done.err
    assert not personal().exists()


def test_no_two_private_clusters_have_the_same_job(cli: Make, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/sh\n#STAGE nodes 1\necho $STAGE_JOB_ID\n")
    first, second = (cli(None).stage("run", "job.sh") for _ in range(2))
    assert 0 < int(first.out) < int(second.out)
    assert "starting 1 node on this machine" in first.err


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        (signal.SIGKILL, -9),
    ],
)
def test_a_cluster_of_its_own_ends_with_stage_run(cli: Make, tmp_path: Path, number: signal.Signals, code: int) -> None:
    mark = "16180.3"
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\n#STAGE nodes 1\nsetsid sleep {mark}\n")
    with cli(None).start("stage", "run", "job.sh") as running:
        until("the job's process", lambda: leaks.with_word(mark), 30)
        running.signal(number)
        assert running.wait().code == code
    until("the end of the cluster", lambda: not leaks.with_word(str(personal())) and not leaks.with_word(mark))
    assert not personal().exists()


MOMENTS: dict[str, Callable[[Path], Any]] = {
    "directory": lambda base: list(base.glob("log")),
    "head": lambda base: leaks.with_word(str(base)),
    "node": lambda base: len(leaks.with_word(str(base))) > 1,
    "announced": lambda base: list(base.glob("head.json")),
}


def moments(other: signal.Signals) -> list[Any]:
    """Each moment with a signal; those with another one than SIGTERM are for the longer run of the tests."""
    slow = pytest.mark.slow
    return [(m, signal.SIGTERM) if m == "node" else pytest.param(m, other, marks=slow) for m in MOMENTS]


@pytest.mark.parametrize(("moment", "number"), moments(signal.SIGHUP))
def test_a_signal_while_a_private_cluster_starts_leaves_nothing_of_it(
    cli: Make, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/sh\n#STAGE nodes 3\nsleep 60\n")
    with cli(None).start("stage", "run", "job.sh") as running:
        until(moment, lambda: any(map(MOMENTS[moment], personal().glob("run-*"))), every=0.002)
        running.signal(number)
        assert running.wait().code == 143
    assert not leaks.with_word(str(personal()))
    assert not personal().exists()


@pytest.mark.parametrize(("moment", "number"), moments(signal.SIGINT))
def test_a_signal_while_a_cluster_starts_leaves_no_process(
    cli: Make, layout: Layout, moment: str, number: signal.Signals
) -> None:
    with cli(layout).start("stage", "up", "--local", "3") as running:
        until(moment, lambda: MOMENTS[moment](layout.base), every=0.002)
        running.signal(number)
        assert running.wait().code == 128 + number
    assert not cluster_processes(layout)


def test_a_job_on_named_nodes_is_not_run_on_others(cli: Make, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/sh\n#STAGE nodes gpu[1-2]\necho ran\n")
    done = cli(None).stage("run", "job.sh")
    assert (done.code, done.out) == (2, "")
    assert "no cluster with the node gpu1 is running" in done.err


def test_a_node_that_dies_midway_costs_its_own_line_and_comes_back(cli: Make, cluster3: Layout, big: Path) -> None:
    run = cli(cluster3)
    with run.start("pcp", "--json", "-f", "1", big, "/scratch/big", "n[1-3]") as running:
        until("some bytes", lambda: list((cluster3.root("n2") / "scratch").glob(".lsh-*/tree/big")), every=0.002)
        victims = [psutil.Process(node_pid(cluster3, "n2")), *psutil.Process(node_pid(cluster3, "n2")).children(True)]
        os.kill(node_pid(cluster3, "n2"), signal.SIGKILL)
        done = running.wait(20)
    assert done.code == 3, done.err
    failed = done.per_node("node-failed")
    assert list(failed) == ["n2"]
    assert failed["n2"]["error"]["class"] in ("Unreachable", "Interrupted")
    assert done.seconds < 15
    for node in ("n1", "n3"):
        assert trees.same_bytes(cluster3.root(node) / "scratch" / "big", big)
    assert not (cluster3.root("n2") / "scratch" / "big").exists()
    until_ended(*victims)
    status = run.stage("status")
    assert [line.split()[2] for line in status.out.splitlines()[1:]] == ["up", "down", "up"]
    refused = run.pcp(big, "/scratch/big", "n2")
    assert refused.code == 5
    assert "n2" in refused.out
    assert run.stage("up", "--local", "3").code == 0
    assert states(cluster3) == dict.fromkeys(("n1", "n2", "n3"), "up")
    again = run.pcp("--json", big, "/scratch/big", "n[1-3]")
    assert again.code == 0
    assert again.per_node("node-done")["n2"]["reused"] > 0
    assert trees.same_bytes(cluster3.root("n2") / "scratch" / "big", big)


def until_ended(*processes: psutil.Process) -> None:
    until("their end", lambda: not any(map(leaks.alive, processes)))


def until_down(layout: Layout, node: str) -> None:
    until("the head's notice", lambda: states(layout)[node] == "down")


def test_a_node_whose_part_dies_ends_as_a_whole(cluster3: Layout) -> None:
    for node, member in (("n1", "stage-worker"), ("n2", "stage-launcher")):
        service = psutil.Process(node_pid(cluster3, node))
        parts = service.children()
        assert len(parts) == 2
        (victim,) = [part for part in parts if part.name() == member]
        victim.kill()
        until_ended(service, *parts)
        until_down(cluster3, node)
    assert states(cluster3) == {"n1": "down", "n2": "down", "n3": "up"}


def test_when_the_head_dies_everything_ends_and_can_be_started_again(cli: Make, layout: Layout, tmp_path: Path) -> None:
    run = cli(layout)
    assert run.stage("up", "--local", "2").code == 0
    mark = "14142.1"
    body = f"setsid sleep {mark} &\nstage each -- sleep {mark}\n"
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\n{body}")
    with run.start("stage", "run", "job.sh") as running:
        until("the job's processes", lambda: len(leaks.with_word(mark)) == 4)
        ports = leaks.listening(cluster_processes(layout))
        os.kill(head_pid(layout), signal.SIGKILL)
        until("the end of everything", lambda: not cluster_processes(layout), NOTICED_WITHIN)
        assert not leaks.with_word(mark)
        done = running.wait(20)
    assert done.code == 5
    assert "stage: the head went away" in done.err
    assert not ports & leaks.open_ports()
    status = run.stage("status")
    assert (status.code, status.out) == (5, "")
    assert "has ended; start it again" in status.err
    assert run.stage("up", "--local", "2").code == 0
    assert states(layout) == {"n1": "up", "n2": "up"}
    assert run.stage("down").code == 0


def test_a_node_that_cannot_start_is_said_and_nothing_stays(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "address_of", lambda name: "192.0.2.1")  # an address nobody has here
    with pytest.raises(TemporaryError, match=r"n1 ended as soon as it was started; see .*/log/n1.log"):
        embedded.start(layout, 1, SERVICES)
    assert not cluster_processes(layout)
    assert "Cannot assign requested address" in (layout.logs / "n1.log").read_text()


@pytest.mark.slow
def test_what_a_cluster_holds_open_does_not_grow(cli: Make, cluster3: Layout, tmp_path: Path) -> None:
    """Descriptors, threads and children of the daemons after much use are those after a little."""
    run = cli(cluster3)
    (tmp_path / "f").write_bytes(b"x" * 1000)
    (tmp_path / "job.sh").write_text("#!/bin/sh\n#STAGE in f f\n#STAGE out f f-%N\nstage each -- true\n")

    def use() -> None:
        assert run.pcp("f", "/scratch/f", "n[1-3]").code == 0
        assert run.stage("run", "job.sh").code == 0
        assert run.pcp("f", "/no/such/f", "n1").code == 2

    def held() -> dict[int, tuple[str, int, int]]:
        return {p.pid: (p.name(), p.num_fds(), len(p.children())) for p in cluster_processes(cluster3)}

    use()
    before = until("idleness", lambda: idle(held))
    for _ in range(10):
        use()
    # Dask keeps as many connections from head to node as were needed at a time, and that may be two by now

    def grown() -> list[tuple[str, int, int]]:
        now = held()
        return [now[pid] for pid in now if now[pid][1] > before[pid][1] + 3 or now[pid][2] > before[pid][2]]

    until("no more than before, but for a connection for each node", lambda: not grown())


def idle(held: Callable[[], Any]) -> Any:
    """What is held, once it stays the same for a moment."""
    first = held()
    return first if all(held() == first for _ in range(5)) else None
