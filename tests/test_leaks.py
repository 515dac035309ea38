"""The leak check itself: each kind of thing left behind is seen, and what ends in time is not held against a test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import leaks
from support.polling import until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# prints the pid of a grandchild that it leaves to itself
ORPHAN = f"import subprocess; print(subprocess.Popen({SLEEP!r}, stdout=-3, start_new_session=True).pid)"
LISTENER = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(1, flush=True); time.sleep(60)"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE_SECONDS", 0.0)


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def left(before: leaks.Snapshot, watched: leaks.Watched) -> list[str]:
    return leaks.settle(before, lambda: leaks.snapshot(watched))


NOTHING = leaks.Watched([], [])


@pytest.mark.usefixtures("at_once")
def test_a_process_and_its_zombie_are_seen() -> None:
    before = leaks.snapshot(NOTHING)
    with running("input()") as process:
        assert [f"process {process.pid} "] == [line[: 9 + len(str(process.pid))] for line in left(before, NOTHING)]
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert "zombie" in left(before, NOTHING)[0]
    assert left(before, NOTHING) == []


@pytest.mark.usefixtures("at_once")
def test_an_orphan_is_seen() -> None:
    before = leaks.snapshot(NOTHING)
    pid = int(subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, check=True).stdout)
    try:
        assert [line.split()[1] for line in left(before, NOTHING)] == [str(pid)]
    finally:
        os.kill(pid, 9)
    until("the orphan's end", lambda: left(before, NOTHING) == [])


@pytest.mark.usefixtures("at_once")
def test_a_thread_is_seen() -> None:
    before = leaks.snapshot(NOTHING)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="idler")
    thread.start()
    assert left(before, NOTHING) == ["thread idler"]
    stop.set()
    thread.join()
    assert left(before, NOTHING) == []


@pytest.mark.usefixtures("at_once")
def test_our_own_inet_sockets_are_seen_and_unix_ones_are_not() -> None:
    before = leaks.snapshot(NOTHING)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert len(left(before, NOTHING)) == 1
        with socket.create_connection(server.getsockname()):
            assert len(left(before, NOTHING)) == 2
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert left(before, NOTHING) == []


@pytest.mark.usefixtures("at_once")
def test_a_port_of_a_process_that_was_there_before_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", f"input(); {LISTENER}"], stdin=-1, stdout=-1) as process:
        try:
            before = leaks.snapshot(NOTHING)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            assert [line.split(":")[0] for line in left(before, NOTHING)] == [f"socket of {process.pid}"]
        finally:
            process.kill()


@pytest.mark.usefixtures("at_once")
def test_files_are_seen_where_they_are_watched_for(tmp_path: Path) -> None:
    watched = leaks.Watched([tmp_path / "top"], [tmp_path / "tree"])
    (tmp_path / "top").mkdir()
    (tmp_path / "tree" / "deep" / "er").mkdir(parents=True)
    before = leaks.snapshot(watched)
    (tmp_path / "tree" / "deep" / "plain").touch()
    assert left(before, watched) == []
    (tmp_path / "top" / "new").touch()
    area = tmp_path / "tree" / "deep" / "er" / ".lsh-0123"
    area.mkdir()
    assert left(before, watched) == [f"file {tmp_path}/top/new", f"file {area}"]
    assert leaks.settle(before, lambda: leaks.snapshot(watched, partials=False)) == [f"file {tmp_path}/top/new"]
    area.rmdir()


def test_what_ends_within_the_grace_is_no_leak() -> None:
    before = leaks.snapshot(NOTHING)
    thread = threading.Timer(0.2, lambda: None)
    thread.start()
    assert left(before, NOTHING) == []
    thread.join()
