"""Embedded clusters for tests, and who is who in their process trees."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cluster import door, embedded, startup
from cluster.commands.up import SERVICES
from cluster.layout import Layout
from support import leaks
from support.polling import until


@contextmanager
def embedded_cluster(count: int, watched: leaks.Watched) -> Iterator[Layout]:
    """A cluster of `count` nodes in a short directory; at its end nothing of it may be left."""
    layout = Layout(Path(tempfile.mkdtemp(prefix="c")))
    embedded.start(layout, count, SERVICES)
    watched.trees.append(layout.base)
    try:
        yield layout
    finally:
        watched.trees.remove(layout.base)
        members = cluster_processes(layout)
        ports = leaks.listening(members)
        if startup.running(layout):
            assert ports
            embedded.stop(layout)
        assert not [process for process in members if leaks.alive(process)]
        reap()
        assert not ports & leaks.open_ports()
        embedded.remove(layout)
        assert not layout.base.exists()


def reap() -> None:
    """Take note of the end of daemons that were started here and then ended by a test."""
    for child in psutil.Process().children():
        if child.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(child.pid, 0)


def cluster_processes(layout: Layout) -> list[psutil.Process]:
    """Head, services, workers, launchers, minders and movers of one cluster."""
    return leaks.with_word(str(layout.base))


def head_pid(layout: Layout) -> int:
    return int(door.ask(layout, {"op": "status"})["pid"])


def node_pid(layout: Layout, node: str) -> int:
    """The pid of a node's service."""
    pids = {n["name"]: n["pid"] for n in door.ask(layout, {"op": "status"})["nodes"]}
    return int(pids[node])


def movers(layout: Layout, *nodes: str) -> list[psutil.Process]:
    """The movers that run on these nodes."""
    status = door.ask(layout, {"op": "status"})
    found = []
    for node in status["nodes"]:
        if node["name"] in nodes:
            for process in psutil.Process(node["pid"]).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.name() == "stage-mover":
                        found.append(process)
    return found


def mover_of(layout: Layout, node: str) -> psutil.Process:
    """The one mover of a node, once it is there."""
    return until(f"a mover on {node}", lambda: movers(layout, node))[0]
