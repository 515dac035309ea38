"""What every way of starting a cluster shares: its keys, the head on this host, and what a node service is told."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
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


def start_head(
    layout: Layout, host: str, kind: str, services: Sequence[str], owned: bool = False
) -> tuple[subprocess.Popen[bytes], int | None]:
    """Start the head; with `owned` also the descriptor whose end it does not survive."""
    arguments = ["--dir", str(layout.base), "--host", host, "--kind", kind]
    for service in services:
        arguments += ["--service", service]
    if not owned:
        return spawn(layout, "head", "cluster.head", arguments), None
    read, write = os.pipe()
    try:
        return spawn(layout, "head", "cluster.head", [*arguments, "--owner", str(read)], keep=[read]), write
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


def wait_head(layout: Layout, process: subprocess.Popen[bytes]) -> HeadInfo:
    """Until the head has announced itself; TemporaryError at once when it has ended."""
    deadline = time.monotonic() + START_SECONDS
    log = layout.logs / "head.log"
    while not layout.head_file.exists():
        if process.poll() is not None:
            raise TemporaryError("the head ended as soon as it was started", f"see {log}")
        if time.monotonic() > deadline:
            raise TemporaryError(f"the head did not come up within {START_SECONDS} s", f"see {log}")
        time.sleep(0.02)
    return layout.read_head()
