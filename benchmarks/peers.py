"""The peers of pcp, as Debian packages them: each copies the rig's source to all its nodes and says how long it took.

All read the source on the head and write /scratch/out/source on every node. What is counted is the time of the command,
or of the loop of commands. udpcast's receivers and uftp's daemons run before and are not counted, nor is Slurm's
allocation; none of them checks contents, but for ssh's MACs.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import CutOff, Skipped
from benchmarks.rig import COPY_SECONDS, OUT, SOURCE, Rig
from tests.hosts import Host
from tests.hosts.host import SYSTEM_PATH
from tests.hosts.stream import one_stream

UDPCAST_PORT = 9000
UFTP_PORT = 1044
SOCKET_BUFFER = 1 << 20
PAYLOAD = 0.925  # of a link's rate: what multicast can send of a file beside its headers and the others' answers
READY_SECONDS = 10.0
CLUSH = "/usr/bin/clush"  # the package's, not that of the Python environment

Peer = Callable[[Rig, float], float]  # rig and time limit in seconds; raises CutOff and Skipped


def stream(rig: Rig, nbytes: int) -> float:
    """One TCP stream from the head to one node: the limit."""
    return one_stream(rig.head, rig.cluster.nodes[0], nbytes)


def scp(rig: Rig, limit: float) -> float:
    """scp to one node after another."""
    return _loop(rig, limit, "scp", f"scp -q -r {SOURCE} $n:{OUT}/source")


def rsync(rig: Rig, limit: float) -> float:
    """rsync over ssh to one node after another."""
    return _loop(rig, limit, "rsync", f"rsync -a {SOURCE} $n:{OUT}/")


def clush(rig: Rig, limit: float) -> float:
    """ClusterShell's copy, to all nodes at once (its default fan-out)."""
    _need(CLUSH, "clustershell")
    return rig.timed([CLUSH, "-w", ",".join(rig.names), "--copy", SOURCE, "--dest", f"{OUT}/source"], limit)


def sbcast(*options: str) -> Peer:
    """Slurm's sbcast, in an allocation of all nodes."""

    def copy(rig: Rig, limit: float) -> float:
        if rig.slurm is None:
            raise Skipped("Slurm is not installed")
        if rig.job is None:
            rig.job = rig.slurm.allocate(len(rig.names))
        argv = ["sbcast", "--force", f"--jobid={rig.job}", *options, SOURCE, f"{OUT}/source"]
        try:
            return rig.timed(argv, limit)
        except CutOff:
            rig.slurm.cancel(rig.job)  # the nodes still hold the file open
            rig.slurm.wait_idle()
            rig.job = None
            raise

    return copy


def udpcast(at_rate: bool) -> Peer:
    """udp-sender to the udp-receivers of all nodes, full duplex; `at_rate`: it is told the link's rate."""

    def copy(rig: Rig, limit: float) -> float:
        _need("udp-sender", "udpcast")
        limits: list[str] = []
        if at_rate:
            if rig.rate_mbit is None:
                raise Skipped("the links have no rate")
            limits = ["--max-bitrate", f"{rig.rate_mbit * PAYLOAD * 1000:.0f}k"]
        receive = ["udp-receiver", "--nokbd", "--interface", "eth0", "--file", f"{OUT}/source"]
        with _running(rig.cluster.nodes, receive, UDPCAST_PORT, ends=True):
            argv = ["udp-sender", "--nokbd", "--full-duplex", "--interface", "eth0", "--file", SOURCE]
            return rig.timed([*argv, "--min-receivers", str(len(rig.names)), *limits], limit)

    return copy


def uftp(*control: str) -> Peer:
    """uftp to the uftpd of all nodes, which it is told; `control`: by default the links' rate by hand."""

    def copy(rig: Rig, limit: float) -> float:
        _need("uftp", "uftp")
        options = [*control]
        if not options:
            if rig.rate_mbit is None:
                raise Skipped("the links have no rate")
            options = ["-R", f"{rig.rate_mbit * PAYLOAD * 1000:.0f}"]
        receive = ["uftpd", "-d", "-D", OUT, "-I", "eth0", "-B", str(SOCKET_BUFFER)]
        with _running(rig.cluster.nodes, receive, UFTP_PORT, ends=False):
            argv = ["uftp", "-I", "eth0", "-B", str(SOCKET_BUFFER), *options]
            return rig.timed([*argv, "-H", ",".join(node.address for node in rig.cluster.nodes), SOURCE], limit)

    return copy


def _loop(rig: Rig, limit: float, program: str, command: str) -> float:
    _need(program, program)
    return rig.timed(["sh", "-c", f"for n in {' '.join(rig.names)}; do {command} || exit 1; done"], limit)


def _need(program: str, package: str) -> None:
    if shutil.which(program, path=SYSTEM_PATH) is None:
        raise Skipped(f"{program} is not installed (package {package})")


@contextlib.contextmanager
def _running(hosts: Sequence[Host], argv: Sequence[str], port: int, *, ends: bool) -> Iterator[None]:
    """A receiver on each host that listens at a UDP port; `ends`: by itself, when it has the file."""
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [host.popen(argv, **quiet) for host in hosts]
    try:
        deadline = time.monotonic() + READY_SECONDS
        for host in hosts:
            while not _bound(host, port):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{argv[0]} on {host.name} does not listen")
                time.sleep(0.01)
        yield
        if ends:
            for process in processes:
                if process.wait(COPY_SECONDS) != 0:
                    raise RuntimeError(f"{argv[0]} ended with {process.returncode}")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _bound(host: Host, port: int) -> bool:
    table = Path(f"/proc/{host.process()[0]}/net/udp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") for line in table)
