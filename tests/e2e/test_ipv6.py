"""A cluster whose head and first node are on ::1, and whose second is not: commands, movers and output over both."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import door
from cluster.commands.up import SERVICES
from cluster.layout import Layout
from support import trees
from support.cli import Cli
from support.polling import until

ADDRESSES = {"n1": "::1", "n2": "127.0.0.3"}


@pytest.fixture
def six() -> Iterator[Layout]:
    """Head and nodes, started as programs."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    layout = Layout(Path(tempfile.mkdtemp(prefix="six")))
    layout.make()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, layout.base)
        services = [word for name in SERVICES for word in ("--service", name)]
        programs = [start(layout, "head", "--host", "::1", *services)]
        stack.callback(end, programs)
        until("the head", layout.head_file.exists, 30)
        for name, address in ADDRESSES.items():
            (layout.root(name) / "scratch").mkdir(parents=True)
            root = str(layout.root(name))
            programs.append(start(layout, "node", "--name", name, "--address", address, "--root", root))
        until("the nodes", lambda: len(door.ask(layout, {"op": "status", "wait": 2, "seconds": 1})["nodes"]) == 2, 30)
        yield layout


def start(layout: Layout, program: str, *words: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", f"cluster.{program}", "--dir", str(layout.base), *words]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end(programs: list[subprocess.Popen[bytes]]) -> None:
    for process in programs:
        process.terminate()
    for process in programs:
        process.wait(30)


def test_copies_and_processes_over_ipv6(six: Layout, cli: Callable[[Layout], Cli], tmp_path: Path) -> None:
    here = cli(six)
    (tmp_path / "f").write_bytes(os.urandom(3 << 20))
    for shape in ("1", "double"):
        done = here.pcp("-f", shape, "f", f"/scratch/{shape}", "[0:0::1]", "127.0.0.3")
        assert done.code == 0, done.err
        assert sorted(done.out.splitlines()) == [
            f"Write succeeded on {name} ({address})" for name, address in ADDRESSES.items()
        ]
        assert all(trees.same_bytes(six.root(name) / "scratch" / shape, tmp_path / "f") for name in ADDRESSES)
    job = [
        "#!/bin/sh",
        "#STAGE out f-%N ./",
        'stage each -N -- sh -c \'echo "$STAGE_NODE" | tee "$STAGE_DIR/f-$STAGE_NODE"\'',
    ]
    (tmp_path / "job.sh").write_text("\n".join([*job, ""]))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = here.stage("run", "job.sh", env={"PATH": path})
    assert done.code == 0, done.err
    assert sorted(done.out.split()) == ["n1", "n2"]
    assert [(tmp_path / f"f-{name}").read_text() for name in ADDRESSES] == ["n1\n", "n2\n"]
