"""What a test may leave behind: nothing. A snapshot of what the test run has alive, and its difference to a later one.

A process belongs to the run when it descends from it or carries its mark in the environment, which also finds what was
orphaned. What a running test cluster owns beside its keeper comes and goes with its hosts; the keeper stands for it.
Daemons of wider-scoped fixtures are in the first snapshot; only their listening ports are compared, since
they pool connections.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.hosts.cluster import own_processes

MARK = "LONGSHORE_TEST_RUN"
GRACE_SECONDS = 8.0
POLL_SECONDS = 0.02
AREA_PREFIX = ".lsh-"
LISTENING = "0A"


@dataclass(frozen=True)
class Snapshot:
    """Processes by (pid, start time), threads, sockets by (pid, inode), entries of the watched directories."""

    processes: frozenset[tuple[int, float]]
    threads: frozenset[threading.Thread]
    sockets: frozenset[tuple[int, str]]
    files: frozenset[str]


@dataclass
class Watched:
    """`tops`: directories in which no new name may appear. `trees`: below which no partial replica may stay."""

    tops: list[Path]
    trees: list[Path]


def snapshot(watched: Watched, partials: bool = True) -> Snapshot:
    """The state now; with `partials`, partial replicas below the watched trees are files too."""
    own = own_processes()
    processes = [process for process in run_processes() if process.pid not in own]
    tops = (entry.path for top in watched.tops for entry in _entries(top))
    areas = (path for tree in watched.trees for path in partial_replicas(tree)) if partials else ()
    return Snapshot(
        frozenset((p.pid, p.create_time()) for p in processes),
        frozenset(threading.enumerate()),
        frozenset((pid, inode) for pid in (os.getpid(), *(p.pid for p in processes)) for inode in _inodes(pid)),
        frozenset([*tops, *areas]),
    )


def settle(before: Snapshot, take: Callable[[], Snapshot]) -> list[str]:
    """What is there now and was not `before`, once for each thing, after a grace for what is just ending."""
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        left = _difference(before, take())
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(POLL_SECONDS)


def _difference(before: Snapshot, after: Snapshot) -> list[str]:
    return [
        *(f"process {_describe(pid)}" for pid, _ in sorted(after.processes - before.processes)),
        *(f"thread {thread.name}" for thread in after.threads - before.threads if thread.is_alive()),
        *(f"socket {name}" for name in _inet_sockets(after.sockets - before.sockets)),
        *(f"file {path}" for path in sorted(after.files - before.files)),
    ]


def run_processes() -> list[psutil.Process]:
    """Every process of this test run but itself, zombies included."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    me = os.getpid()
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != me and int(name) not in found:
            try:
                if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found[int(name)] = psutil.Process(int(name))
            except (OSError, psutil.NoSuchProcess):
                continue  # gone by now, or another user's
    return [process for process in found.values() if process.is_running()]


def alive(process: psutil.Process) -> bool:
    """Whether it has not ended yet; a zombie has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def with_word(word: str) -> list[psutil.Process]:
    """The living processes of this run that have this text in a word of their command line."""
    found = []
    for process in run_processes():
        try:
            if any(word in part for part in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def partial_replicas(tree: Path) -> Iterator[str]:
    for base, names, _ in os.walk(tree):
        for name in [name for name in names if name.startswith(AREA_PREFIX)]:
            names.remove(name)
            yield os.path.join(base, name)


def listening(processes: Iterable[psutil.Process]) -> set[str]:
    """The TCP endpoints at which these processes listen, as /proc writes them."""
    table = _inet_table()
    inodes = {inode for process in processes for inode in _inodes(process.pid)}
    return {line for inode, (state, line) in table.items() if inode in inodes and state == LISTENING}


def open_ports() -> set[str]:
    """Every endpoint of this machine at which somebody listens, as /proc writes them."""
    return {line for state, line in _inet_table().values() if state == LISTENING}


def _inet_sockets(sockets: Iterable[tuple[int, str]]) -> list[str]:
    """Of these sockets our own inet ones, and those at which another process listens."""
    mine = os.getpid()
    found = sorted(sockets)
    table = _inet_table() if found else {}  # reading it is slow
    return [
        f"of {pid}: {table[inode][1]}"
        for pid, inode in found
        if inode in table and (pid == mine or table[inode][0] == LISTENING)
    ]


def _inet_table() -> dict[str, tuple[str, str]]:
    """Inode to (state, "tcp LOCAL REMOTE") of every inet socket of this machine."""
    table = {}
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        try:
            lines = Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
        except FileNotFoundError:  # no IPv6 here
            continue
        for line in lines:
            _, local, remote, state, *rest = line.split()
            table[rest[5]] = state, f"{kind} {local} {remote}"
    return table


def _inodes(pid: int) -> Iterator[str]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            paths = [entry.path for entry in entries]
    except OSError:
        return  # it has ended
    targets = []
    for path in paths:
        with contextlib.suppress(OSError):  # closed by now
            targets.append(os.readlink(path))
    for target in targets:
        if target.startswith("socket:["):
            yield target[8:-1]


def _entries(top: Path) -> list[os.DirEntry[str]]:
    return list(os.scandir(top)) if top.is_dir() else []


def _describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return f"{pid} {process.name()}: {'a zombie' if zombie else ' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return str(pid)
