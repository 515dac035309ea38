"""Nodes that a service manager starts at a head's first connection, by the real systemd-socket-activate."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster import door
from cluster.layout import Layout
from support import leaks, strangers
from support.cli import Cli
from support.polling import until

ACTIVATE = shutil.which("systemd-socket-activate")
KEYS = ("ca.pem", "cert.pem", "key.pem")

Make = Callable[[Layout | None], Cli]
pytestmark = pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed (package systemd)")


@pytest.fixture
def base() -> Iterator[Path]:
    """A short directory; what runs in it is ended by the tests."""
    with tempfile.TemporaryDirectory(prefix="a") as made:
        (Path(made) / "nodes").mkdir()
        yield Path(made)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def activated(keys: Path, port: int, nodes: Path, address: str = "127.0.0.1") -> Iterator[subprocess.Popen[str]]:
    """systemd's stand-in: it listens, becomes the service at the first connection, and is not started again."""
    command = [sys.executable, "-P", "-m", "cluster.activated", "--keys", str(keys), "--idle", "20"]
    words = [str(ACTIVATE), "-l", f"{address}:{port}", "-E", f"RUNTIME_DIRECTORY={nodes}", *command]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            until("it listens", lambda: leaks.listening([psutil.Process(process.pid)]))
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def up(run: Cli, port: int, keys: Path) -> tuple[int, list[str]]:
    done = run.stage("up", "--hosts", "n1=127.0.0.1", "--dial", str(port), "--keys", keys)
    return done.code, done.err.splitlines()


@pytest.mark.slow
def test_the_first_connection_starts_the_node_and_again_after_its_end(cli: Make, base: Path, port: int) -> None:
    run, keys, nodes = cli(Layout(base / "c")), base / "keys", base / "nodes"
    assert run.stage("keys", keys).out.split() == [str(keys / name) for name in KEYS]
    for _ in range(2):
        with activated(keys, port, nodes) as service:
            assert psutil.Process(service.pid).name() != "stage-activated"  # nothing of ours runs yet
            assert up(run, port, keys)[0] == 0
            assert psutil.Process(service.pid).name() == "stage-activated"
            status = json.loads(run.stage("status", "--json").out)
            assert [(n["name"], n["state"]) for n in status["nodes"]] == [("n1", "up")]
            other = Cli(Layout(base / "d"), base)
            assert up(other, port, keys)[1][0].startswith("n1: its node belongs to another cluster")
            assert run.stage("down").code == 0
            assert service.wait(20) == 0
            assert not os.listdir(nodes)


def test_strangers_do_not_get_in(cli: Make, base: Path, port: int) -> None:
    run, keys, others = cli(Layout(base / "c")), base / "keys", base / "others"
    run.stage("keys", keys)
    run.stage("keys", others)
    with activated(keys, port, base / "nodes") as service:
        strangers.throw(socket.AF_INET, ("127.0.0.1", port))
        code, lines = up(run, port, others)
        assert code == 7
        assert "install the same ones" in lines[0]
        assert not os.listdir(base / "nodes")
        assert up(run, port, keys)[0] == 0  # the rightful head gets its turn
        assert [n["state"] for n in door.ask(Layout(base / "c"), {"op": "status"})["nodes"]] == ["up"]
        assert run.stage("down").code == 0
        assert service.wait(20) == 0


@pytest.mark.slow
def test_nobody_there_and_no_keys_are_said(cli: Make, base: Path, port: int) -> None:
    run, keys = cli(Layout(base / "c")), base / "keys"
    assert up(run, port, keys)[0] == 4  # no keys
    run.stage("keys", keys)
    code, lines = up(run, port, keys)
    assert code == 5
    assert lines[0].endswith("Connection refused; is longshore-node.socket started there?")
    done = run.stage("up", "--local", "1", "--dial", str(port), "--keys", keys)
    assert done.code == 2


def test_without_a_passed_socket_it_says_what_to_start(base: Path) -> None:
    words = [sys.executable, "-P", "-m", "cluster.activated", "--keys", str(base)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env={**os.environ, "LISTEN_FDS": "1"})
    assert (done.returncode, done.stderr) == (
        2,
        "stage node: no listening socket was passed; start longshore-node.socket, which starts this\n",
    )
