"""What every way of starting a cluster shares: its keys, the head on this host, and what a node service is told."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import door, pki
from cluster.credentials import Authority
from cluster.layout import HeadInfo, Layout
from staging.mover.errors import StageError, TemporaryError

START_SECONDS = 60
STOP_SECONDS = 15
RELEASED = b"released"  # what the head's starter writes when it is not its owner any more
DISTRIBUTIONS = ("longshore", "distributed")  # of these head and nodes must have the same version


@dataclass(frozen=True)
class NodeSpec:
    """One node: its name, the address at which it listens, the root of its file tree ("" for the machine's own)."""

    name: str
    address: str
    root: str

    def arguments(self, base: Path) -> list[str]:
        """The command line of its service (cluster.node), for a node whose files are in `base`."""
        return ["--dir", str(base), "--name", self.name, "--address", self.address, "--root", self.root]


@functools.cache
def versions() -> dict[str, str]:
    """What is installed under this interpreter."""
    return {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}


def running(layout: Layout) -> bool:
    """Whether a head answers there."""
    try:
        door.ask(layout, {"op": "status"}, timeout=5)
    except StageError:
        return False
    return True


def prepare(layout: Layout) -> pki.TlsFiles:
    """Make the keys of a cluster, and forget a head that is no more."""
    layout.head_file.unlink(missing_ok=True)
    layout.head_socket.unlink(missing_ok=True)
    Authority.ensure(layout.keys)
    return pki.ensure(layout.keys, now=datetime.datetime.now(datetime.UTC))


@dataclass(frozen=True)
class StartedHead:
    """A head that ends, and removes the cluster's directory, when `owner` is closed, however this process ends."""

    process: subprocess.Popen[bytes]
    owner: int

    def release(self) -> None:
        """Let it outlive this process."""
        os.write(self.owner, RELEASED)
        os.close(self.owner)
        self.process.returncode = 0

    def end(self) -> None:
        """End it and all that has joined, and wait for that."""
        os.close(self.owner)
        wait_gone(self.process.pid, STOP_SECONDS)
        self.process.returncode = 0


def start_head(layout: Layout, host: str, kind: str, services: Sequence[str]) -> StartedHead:
    read, write = os.pipe()
    arguments = ["--dir", str(layout.base), "--host", host, "--kind", kind, "--owner", str(read)]
    for service in services:
        arguments += ["--service", service]
    try:
        return StartedHead(spawn(layout, "head", "cluster.head", arguments, keep=[read]), write)
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)


def spawn(
    layout: Layout, log: str, module: str, arguments: list[str], keep: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a daemon of the cluster on this machine."""
    with open(layout.logs / f"{log}.log", "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=list(keep),
            start_new_session=True,
            cwd="/",
        )


def wait_head(layout: Layout, process: subprocess.Popen[bytes] | None) -> HeadInfo:
    """What the head announces; waits for one just started as `process`. TemporaryError at once when that has ended."""
    deadline = time.monotonic() + START_SECONDS
    log = layout.logs / "head.log"
    while not layout.head_file.exists():
        if process is None or process.poll() is not None:
            raise TemporaryError("the head ended as soon as it was started", f"see {log}")
        if time.monotonic() > deadline:
            raise TemporaryError(f"the head did not come up within {START_SECONDS} s", f"see {log}")
        time.sleep(0.02)
    return layout.read_head()


def wait_gone(pid: int, seconds: float) -> None:
    """Wait for a process that is perhaps not our child; kill it when it takes too long."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([handle], [], [], seconds)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)  # where it is this process's own child
    finally:
        os.close(handle)
