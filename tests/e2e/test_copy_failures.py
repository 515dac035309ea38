"""pcp on a real cluster when things go wrong: what is refused, what fails alone, what is left."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from cluster.layout import Layout
from support import leaks, trees
from support.cli import Cli
from support.clusters import mover_of, movers
from support.polling import until
from support.strangers import throw

ALL = "n[1-4]"
STOPS_WITHIN = 2.0  # seconds from ^C to the end of the command


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100_000)
    return path


# refused before anything is done ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("f", "/d", "n9"), r"'n9' is no node of this cluster; .*hosts out of n\[1-4\]"),
        (("f", "/d"), r"pcp needs a source, a destination and at least one host; write pcp SRC\.\.\. DEST HOST\.\.\."),
        (("f", "n1"), r"pcp needs .*; write pcp SRC\.\.\. DEST HOST\.\.\."),
        ((), r"Missing argument .*; see `pcp --help`"),
        (("d", "/d", "n1"), r"d is a directory; give -r to copy it with all that is in it"),
        (("-f", "0", "f", "/d", "n1"), r"a fan-out of 0 is impossible; choose one from 1 to \d+"),
        (("-f", "bush", "f", "/d", "n1"), r"'bush' is not the shape of a tree; write chain, double, .*"),
        (("-b", "big", "f", "/d", "n1"), r"'big' is not a size; write it as .*"),
        (("-b", "33M", "f", "/d", "n1"), r"a block of 33M is out of range; give 4K to 32M"),
        (("--nonesuch", "f", "/d", "n1"), r"No such option.*; see `pcp --help`"),
        (("f", "/no/such/place/f", "n1"), None),
    ],
)
def test_wrong_usage_is_exit_2_and_one_line_with_a_remedy(
    here: Cli, small: Path, words: tuple[str, ...], line: str | None
) -> None:
    (small.parent / "d").mkdir()
    done = here.pcp(*words)
    assert done.code == 2
    if line is None:  # only the node can tell
        assert re.fullmatch(
            r"Write failed on n1 \(127\.0\.0\.2\): .*/no/such/place does not exist; make it first\n", done.out
        )
    else:
        assert done.out == ""
        assert re.fullmatch(rf"pcp: {line}\n", done.err)


@pytest.mark.parametrize("word", ["missing", "missing/inside", "f/inside"])
def test_a_missing_source_is_exit_4_and_named(here: Cli, spot: Any, small: Path, word: str) -> None:
    done = here.pcp(word, f"{spot.dest}/f", ALL)
    assert (done.code, done.out) == (4, "")
    assert re.fullmatch(rf"pcp: cannot read .*{word}: (No such file|Not a) .*\n", done.err)
    assert all(spot.names(node) == [] for node in spot.nodes)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_source_is_exit_4_and_named(here: Cli, spot: Any, small: Path) -> None:
    small.chmod(0)
    done = here.pcp("f", f"{spot.dest}/f", "n1")
    assert done.code == 4
    assert "f" in done.err


def test_without_a_cluster_it_is_exit_5(cli: Callable[[Layout], Cli], small: Path) -> None:
    done = cli(Layout(small.parent / "none")).pcp("f", "/d", "n1")
    assert (done.code, done.out) == (5, "")
    assert "; start one with `stage up --local 4`\n" in done.err


# destinations that do not take it ----------------------------------------------------------------------------


def test_a_file_where_a_directory_must_be_fails_that_node_alone(here: Cli, spot: Any, small: Path) -> None:
    spot.on("n2", "there").write_text("mine")
    for node in ("n1", "n3"):
        spot.on(node, "there").mkdir()
    done = here.pcp("f", f"{spot.dest}/there/", "n[1-3]")
    assert done.code == 3
    assert re.search(
        r"Write failed on n2 \(127\.0\.0\.3\): .*there is a file, a directory is needed; remove it", done.out
    )
    assert spot.on("n2", "there").read_text() == "mine"
    assert all(trees.same_bytes(spot.on(node, "there", "f"), small) for node in ("n1", "n3"))


def test_a_file_as_the_parent_is_not_said_to_be_missing(here: Cli, spot: Any, small: Path) -> None:
    spot.on("n1", "file").write_text("mine")
    done = here.pcp("f", f"{spot.dest}/file/f", "n1")
    assert done.code == 2
    assert re.search(r"Write failed on n1 .*/file is no directory; remove it or name another destination", done.out)
    assert spot.on("n1", "file").read_text() == "mine"


def test_a_read_only_destination_is_refused_on_that_node_alone(
    here: Cli, spot: Any, small: Path, mounted: Callable[..., None]
) -> None:
    for node in ("n1", "n2"):
        spot.on(node, "d").mkdir()
    mounted(spot.on("n2", "d"), "--bind", "-o", "ro", str(spot.on("n2", "d")))
    done = here.pcp("f", f"{spot.dest}/d/", "n1", "n2")
    assert done.code == 3
    assert re.search(r"Write failed on n2 .*cannot write to .*: Read-only file system", done.out)
    assert here.pcp("f", f"{spot.dest}/d/", "n2").code == 7
    assert (spot.names("n1"), os.listdir(spot.on("n1", "d")), os.listdir(spot.on("n2", "d"))) == (["d"], ["f"], [])


def test_a_full_file_system_is_exit_8_and_left_as_it_was(
    here: Cli, spot: Any, tmp_path: Path, mounted: Callable[..., None]
) -> None:
    for node in ("n1", "n2"):
        spot.on(node, "d").mkdir()
    mounted(spot.on("n2", "d"), "-t", "tmpfs", "-o", "size=4m", "none")
    (tmp_path / "f").write_bytes(os.urandom(6 << 20))
    done = here.pcp("f", f"{spot.dest}/d/", "n2")
    assert done.code == 8
    assert re.search(r"Write failed on n2 .*needs 6,291,456 bytes, .* free; free space there", done.out)
    assert os.listdir(spot.on("n2", "d")) == []
    done = here.pcp("f", f"{spot.dest}/d/", "n1", "n2")
    assert done.code == 3
    assert trees.same_bytes(spot.on("n1", "d", "f"), tmp_path / "f")
    assert os.listdir(spot.on("n2", "d")) == []


def test_a_file_system_that_fills_up_midway_is_exit_8_and_left_as_it_was(
    here: Cli, spot: Any, tmp_path: Path, mounted: Callable[..., None]
) -> None:
    spot.on("n1", "d").mkdir()
    mounted(spot.on("n1", "d"), "-t", "tmpfs", "-o", "size=4m,nr_inodes=20", "none")
    (tmp_path / "many").mkdir()
    for number in range(40):
        (tmp_path / "many" / str(number)).write_text("x")
    done = here.pcp("-r", "many", f"{spot.dest}/d/", "n1")
    assert done.code == 8
    assert re.search(r"Write failed on n1 .*: cannot write .*: No space left on device; free space there", done.out)
    assert os.listdir(spot.on("n1", "d")) == []


# sources that change -----------------------------------------------------------------------------------------


def test_a_source_that_is_written_to_is_named_and_nothing_gets_its_name(here: Cli, spot: Any, tmp_path: Path) -> None:
    growing = tmp_path / "growing"
    growing.write_bytes(b"x" * (64 << 20))
    stop = threading.Event()

    def grow() -> None:
        with open(growing, "ab") as file:
            while not stop.wait(0.001):
                file.write(b"y" * 1000)
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        done = here.pcp(growing, f"{spot.dest}/growing", ALL)
    finally:
        stop.set()
        writer.join()
    assert done.code == 4
    for node in spot.nodes:
        assert re.search(
            rf"Write failed on {node} .*{growing} changed while it was read; stage it again once", done.out
        )
        assert spot.names(node) == []


@pytest.mark.parametrize("change", ["touch", "truncate", "replace", "remove"])
def test_a_source_that_changes_midway_is_named_and_nothing_gets_its_name(
    here: Cli, spot: Any, tmp_path: Path, change: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * (96 << 20))
    (tmp_path / "other").write_bytes(b"x" * (96 << 20))
    with here.start("pcp", "--json", "-f", "1", source, f"{spot.dest}/source", "n1", "n2") as running:
        running.lines_until(lambda line: '"transfer-start"' in line)
        if change == "touch":
            os.utime(source)
        elif change == "truncate":
            os.truncate(source, 1000)
        elif change == "replace":
            os.rename(tmp_path / "other", source)
        else:
            source.unlink()
        done = running.wait()
    assert done.code == 4
    failed = done.per_node("node-failed")
    assert set(failed) == {"n1", "n2"}
    for node, event in failed.items():
        assert event["error"]["class"] == "SourceChanged"
        assert str(source) in event["error"]["message"]
        assert not event["partial"]
        assert spot.names(node) == []


# movers and commands that die --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["1", pytest.param("double", marks=pytest.mark.slow)])
def test_a_killed_mover_costs_its_own_node_alone_and_the_same_command_resumes(
    here: Cli, spot: Any, cluster4: Layout, big: Path, shape: str
) -> None:
    words = ("pcp", "--json", "-f", shape, big, f"{spot.dest}/big", ALL)
    with here.start(*words) as running:
        with spot.held(running, "n2"):
            mover_of(cluster4, "n2").kill()
        done = running.wait()
    assert done.code == 3
    failed = done.per_node("node-failed")
    assert list(failed) == ["n2"]
    assert failed["n2"]["error"]["class"] == "Interrupted"
    assert failed["n2"]["partial"]
    assert "big" not in spot.names("n2")
    again = here.pcp(*words[1:])
    assert again.code == 0
    ended = again.per_node("node-done")
    size = big.stat().st_size
    assert 0 < ended["n2"]["fetched"] < size
    assert ended["n2"]["fetched"] + ended["n2"]["reused"] >= size  # some may come twice at the end
    assert ended["n2"]["reused"] > 0
    assert {ended[node]["fetched"] for node in ("n1", "n3", "n4")} == {0}
    for node in spot.nodes:
        assert spot.names(node) == ["big"]
        assert trees.same_bytes(spot.on(node, "big"), big)


@pytest.mark.slow
def test_a_mover_that_hangs_is_given_up(here: Cli, spot: Any, cluster4: Layout, big: Path) -> None:
    with here.start("pcp", "--json", "-f", "1", big, f"{spot.dest}/big", ALL) as running:
        with spot.held(running, "n2"):
            mover_of(cluster4, "n2").suspend()
        done = running.wait(40)
    assert done.code == 3
    assert list(done.per_node("node-failed")) == ["n2"]
    assert done.seconds < 20
    assert all(trees.same_bytes(spot.on(node, "big"), big) for node in ("n1", "n3", "n4"))
    assert "big" not in spot.names("n2")
    assert here.pcp("-q", big, f"{spot.dest}/big", "n2").code == 0


@pytest.mark.leaves_partial
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_stops_everything_at_once_and_says_what_is_left(
    here: Cli, spot: Any, cluster4: Layout, big: Path, number: signal.Signals, code: int
) -> None:
    with here.start("pcp", "--json", big, f"{spot.dest}/big", ALL) as running:
        spot.wait_for_bytes("n2")
        before = running.elapsed()
        running.signal(number)
        done = running.wait()
    assert done.code == code
    assert done.seconds - before < STOPS_WITHIN
    until("the movers' end", lambda: not movers(cluster4, *spot.nodes), STOPS_WITHIN)
    failed = done.per_node("node-failed")
    assert set(failed) == set(spot.nodes)
    for node, event in failed.items():
        assert event["error"]["class"] == "Interrupted"
        assert "big" not in spot.names(node)
        assert event["partial"] == bool(spot.names(node))
    assert failed["n2"]["partial"]
    done = here.pcp("--json", big, f"{spot.dest}/big", ALL)
    assert done.code == 0
    assert 0 < done.per_node("node-done")["n2"]["fetched"] < big.stat().st_size
    assert all(spot.names(node) == ["big"] for node in spot.nodes)


@pytest.mark.leaves_partial
def test_an_interrupted_copy_says_so_in_words(here: Cli, spot: Any, big: Path) -> None:
    with here.start("pcp", "--progress", "lines", big, f"{spot.dest}/big", "n1") as running:
        spot.wait_for_bytes("n1")
        running.signal(signal.SIGINT)
        done = running.wait()
    assert done.code == 130
    assert re.fullmatch(r"Write failed on n1 .*interrupted( \(partial copy kept, run the same .*\)|.*)\n", done.out)
    assert done.err.endswith("pcp: interrupted\n")


@pytest.mark.leaves_partial
def test_a_killed_command_leaves_no_mover(here: Cli, spot: Any, cluster4: Layout, big: Path) -> None:
    with here.start("pcp", "--json", big, f"{spot.dest}/big", ALL) as running:
        spot.wait_for_bytes("n4")
        running.signal(signal.SIGKILL)
        assert running.wait().code == -signal.SIGKILL
    until("the movers' end", lambda: not movers(cluster4, *spot.nodes))
    assert all("big" not in spot.names(node) for node in spot.nodes)


def test_out_of_time_is_exit_8_and_the_same_command_resumes(here: Cli, spot: Any, tmp_path: Path) -> None:
    size = 16 << 20
    (tmp_path / "f").write_bytes(os.urandom(size))
    done = here.pcp("--bwlimit", "2M", "--timeout", "4", "f", f"{spot.dest}/f", "n1", "n2")
    assert done.code == 8
    kept = {node for node in ("n1", "n2") if spot.names(node)}
    assert all("f" not in spot.names(node) for node in kept)
    for node in ("n1", "n2"):
        left = r" \(partial copy kept, run the same command to resume\)" if node in kept else "; allow more, .*"
        line = rf"^Write failed on {node} .*: not done within the 4 s of the time limit{left}$"
        assert re.search(line, done.out, re.MULTILINE), done.out
    assert re.search("^f: failed on all 2 nodes$", done.err, re.MULTILINE)
    again = here.pcp("--json", "f", f"{spot.dest}/f", "n1", "n2")  # in larger blocks
    assert again.code == 0
    assert {node for node, event in again.per_node("node-done").items() if event["reused"]} <= kept
    assert all(trees.same_bytes(spot.on(node, "f"), tmp_path / "f") for node in ("n1", "n2"))


@pytest.mark.slow
def test_a_node_that_is_late_fails_and_the_others_keep_what_they_have(
    here: Cli, spot: Any, cluster4: Layout, big: Path
) -> None:
    with here.start("pcp", "--timeout", "7", "-f", "2", big, f"{spot.dest}/big", "n1", "n2") as running:
        with spot.held(running, "n2"):
            mover_of(cluster4, "n2").suspend()
        done = running.wait()
    assert done.code == 3
    assert re.search("^Write succeeded on n1 ", done.out, re.MULTILINE)
    assert re.search("^Write failed on n2 .*: not done within the 7 s of the time limit", done.out, re.MULTILINE)
    assert trees.same_bytes(spot.on("n1", "big"), big)
    until("the movers' end", lambda: not movers(cluster4, *spot.nodes))
    assert here.pcp("-q", big, f"{spot.dest}/big", "n2").code == 0


def test_the_same_copy_twice_at_a_time_is_refused_once(here: Cli, spot: Any, big: Path) -> None:
    with here.start("pcp", "--json", big, f"{spot.dest}/big", "n1") as running:
        with spot.held(running, "n1"):
            second = here.pcp(big, f"{spot.dest}/big", "n1")
        assert second.code == 5
        assert "another transfer of the same files" in second.out
        assert running.wait().code == 0
    assert trees.same_bytes(spot.on("n1", "big"), big)


# strangers ---------------------------------------------------------------------------------------------------


def test_random_bytes_on_every_port_harm_nothing(here: Cli, spot: Any, cluster4: Layout, big: Path) -> None:
    with here.start("pcp", "--json", "-f", "1", big, f"{spot.dest}/big", "n1", "n2") as running:
        with ThreadPoolExecutor(16) as pool:
            with spot.held(running, "n2"):
                ports = {endpoint(line) for line in leaks.listening(leaks.run_processes())}
                thrown = [pool.submit(throw, socket.AF_INET, port) for port in ports]
                wait(thrown, 0.5)  # all but the mover that is held have them by then, most likely
            for one in thrown:
                one.result()
        done = running.wait()
    assert len(ports) >= 1 + 1 + 4 + 3  # scheduler, doors, workers, the movers of source and nodes
    assert (done.code, done.per_node("node-failed")) == (0, {})
    assert all(trees.same_bytes(spot.on(node, "big"), big) for node in ("n1", "n2"))
    assert here.stage("status").out.count(" up ") == 4


def endpoint(line: str) -> tuple[str, int]:
    """The address in a line of /proc/net/tcp."""
    kind, local, _ = line.split()
    address, port = local.split(":")
    assert kind == "tcp", line
    return socket.inet_ntoa(int(address, 16).to_bytes(4, "little")), int(port, 16)
