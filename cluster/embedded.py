"""A whole cluster on this machine: the real head and the real node services, as processes of this user.

Node nK has the address 127.0.0.(K+1) and a file tree of its own; only the way of starting differs from a real cluster.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence

from cluster import door
from cluster.keyfiles import locked
from cluster.layout import Layout, personal
from cluster.nodes import fold, resolve_count
from cluster.signals import deferred
from cluster.startup import (
    START_SECONDS,
    STOP_SECONDS,
    NodeSpec,
    StartedHead,
    prepare,
    running,
    spawn,
    start_head,
    wait_gone,
)
from staging.mover.errors import PartialError, TemporaryError, Unreachable, UsageError

HOST = "127.0.0.1"
KIND = "local"
POLL_SECONDS = 0.5
MAX_NODES = 250


def address_of(name: str) -> str:
    """The loopback address of an embedded node."""
    return f"127.0.0.{int(name[1:]) + 1}"


def start(layout: Layout, count: int, services: Sequence[str], owned: bool = False) -> int | None:
    """Start what is missing of an embedded cluster of `count` nodes and wait until it is up.

    With `owned` the cluster ends when the returned descriptor is closed, however this process ends.
    Raises UsageError for a count out of range and TemporaryError when a node does not come up.
    """
    if not 1 <= count <= MAX_NODES:
        raise UsageError(f"an embedded cluster has 1 to {MAX_NODES} nodes, not {count}")
    layout.make()
    with locked(layout.base):  # two at once would each start a head
        return _start_missing(layout, count, services, owned)


def _start_missing(layout: Layout, count: int, services: Sequence[str], owned: bool) -> int | None:
    names = list(resolve_count(count))
    present: set[str] = set()
    head: StartedHead | None = None
    started: dict[str, subprocess.Popen[bytes]] = {}
    head_there = running(layout)
    if head_there:
        if layout.read_head().kind != KIND:
            raise UsageError(f"the cluster in {layout.base} is not one of this machine", "name another with --cluster")
        nodes = door.ask(layout, {"op": "status", "probe": True})["nodes"]
        present = {n["name"] for n in nodes if n["state"] == "up"}
    else:
        prepare(layout)
    try:
        if not head_there:
            with deferred():  # what has been started is known, however this ends
                head = start_head(layout, HOST, KIND, services)
                started["head"] = head.process
        for name in names:
            if name not in present:
                with deferred():
                    started[name] = _start_node(layout, name)
        _wait_up(layout, len(set(names) | present), started)
    except BaseException:
        with deferred():
            for process in started.values():
                process.terminate()
            for process in started.values():
                wait_gone(process.pid, STOP_SECONDS)
            if head is not None:
                os.close(head.owner)  # after its end by SIGTERM, which leaves the logs
        raise
    finally:
        for process in started.values():
            process.returncode = process.returncode or 0  # they are meant to outlive this command
    if head is None or owned:
        return head.owner if head else None
    head.release()
    return None


def _start_node(layout: Layout, name: str) -> subprocess.Popen[bytes]:
    root = layout.root(name)
    (root / "scratch").mkdir(parents=True, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    layout.node(name).chmod(0o700)
    spec = NodeSpec(name, address_of(name), str(root))
    return spawn(layout, name, "cluster.node", spec.arguments(layout.base))


def _wait_up(layout: Layout, count: int, started: dict[str, subprocess.Popen[bytes]]) -> None:
    """Until `count` nodes have joined; TemporaryError at once when one of the started processes has ended."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for name, process in started.items():
            if process.poll() is not None:
                raise TemporaryError(f"{name} ended as soon as it was started", f"see {layout.logs / name}.log")
        if layout.head_file.exists():
            answer = door.ask(layout, {"op": "status", "wait": count, "seconds": POLL_SECONDS})
            if sum(n["state"] == "up" for n in answer["nodes"]) >= count:
                return
        else:
            time.sleep(0.02)
    raise TemporaryError(f"not all of {count} nodes came up within {START_SECONDS} s", f"see the logs in {layout.logs}")


def stop(layout: Layout, keep: bool = False) -> None:
    """End the cluster and, unless `keep`, remove its directory; waits until every process is gone."""
    head = layout.read_head()
    if not head.kind:
        raise UsageError(f"the cluster in {layout.base} was not started by `stage up`", "stop its services")
    left: list[str] = []
    try:
        answer = door.ask(layout, {"op": "down"})
        left = answer["left"]
        pids = [answer["pid"], *answer["services"]]
    except Unreachable:
        pids = [head.pid] if _is_head(head.pid, layout) else []
    for pid in pids:
        wait_gone(pid, STOP_SECONDS)
    if not keep:
        remove(layout)
    if left:
        raise PartialError(
            f"the head has ended, but nothing was heard of the end of {fold(left)}",
            "what runs there ends once it misses the head; look there if that is in doubt",
        )


def _is_head(pid: int, layout: Layout) -> bool:
    """Whether that process is still the head that announced itself, and not another one that got its number."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return os.fsencode(layout.base) in file.read().split(b"\0")
    except OSError:
        return False


def remove(layout: Layout) -> None:
    """Delete what a cluster that has ended left in its directory, and nothing else.

    The nodes' file trees are included, unless a job's results are to be kept in them.
    """
    ours = layout.parts() if layout.marker_file.exists() else []
    kept = [layout.nodes, layout.kept_file] if layout.kept() else []
    for path in ours:
        if path in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not any(map(os.path.lexists, ours)):
        layout.marker_file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody keeps something of his own there
        layout.base.rmdir()
    if layout.base.parent == personal():
        with contextlib.suppress(OSError):  # other clusters of this user are in it
            personal().rmdir()
