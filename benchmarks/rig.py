"""What a copy is measured on: a test cluster with a staging cluster on it, sources on its head, copies compared."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import CutOff
from tests.hosts import Cluster, Host
from tests.hosts.slurm import Slurm

STAGE = "/run/stage"  # the staging cluster's directory on the head
SOURCE = "/scratch/source"
OUT = "/scratch/out"  # on every node, emptied before each copy
CHUNK = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
UP_SECONDS = 240.0
COPY_SECONDS = 600.0
END_SECONDS = 30.0


@contextlib.contextmanager
def staging_cluster(cluster: Cluster, hosts: Sequence[Host] = (), python: str = "") -> Iterator[None]:
    """The staging cluster of these hosts (default: all nodes) is up, started from the head over ssh."""
    stage_up(cluster, hosts or cluster.nodes, python)
    try:
        yield
    finally:
        if cluster.head.pid is not None:
            cluster.head.run(["stage", "down", "--cluster", STAGE], check=False, timeout=END_SECONDS)


def stage_up(cluster: Cluster, hosts: Sequence[Host], python: str = "") -> None:
    """Start the node services of these hosts, and the head where there is none yet."""
    path = cluster.head.path("/run/hosts")
    path.write_text("".join(f"{host.name}={host.address}\n" for host in hosts))
    argv = ["stage", "up", "--cluster", STAGE, "--hosts", "/run/hosts", "--address", cluster.head.address]
    cluster.head.run([*argv, *(["--python", python] if python else [])], timeout=UP_SECONDS)


@dataclass
class Copy:
    """How a run of pcp went; times are Unix times."""

    began: float
    ended: float
    code: int
    events: list[dict[str, Any]] = field(default_factory=list)
    errors: str = ""

    @property
    def seconds(self) -> float:
        """From the start of the command to its exit."""
        return self.ended - self.began

    def done(self) -> dict[str, float]:
        """Seconds from the start of the command to each node's `node-done`."""
        return {e["node"]: e["time"] - self.began for e in self.events if e["type"] == "node-done"}

    def failed(self) -> dict[str, str]:
        """The message of each node that failed."""
        return {e["node"]: e["error"]["message"] for e in self.events if e["type"] == "node-failed"}

    def notes(self) -> list[str]:
        return [f"{e['node']}: {e['message']}" for e in self.events if e["type"] == "note"]


class Pcp:
    """A running `pcp --json`; its events as they come."""

    def __init__(self, head: Host, words: Sequence[str]) -> None:
        self.copy = Copy(time.time(), 0.0, 0)
        self.process = head.popen(
            ["pcp", "--json", "--progress", "none", "--cluster", STAGE, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self) -> Iterator[dict[str, Any]]:
        """Each event as it comes; to be iterated to its end, or broken off before `end`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event["type"] != "progress":
                self.copy.events.append(event)
            yield event

    def end(self, signum: int | None = None) -> Copy:
        """Wait for the end, after a signal if there is one."""
        if signum is not None and self.process.poll() is None:
            self.process.send_signal(signum)
        for _ in self.events():
            pass
        assert self.process.stderr is not None
        self.copy.errors = self.process.stderr.read()
        self.copy.code = self.process.wait()
        self.copy.ended = time.time()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return self.copy


class Rig:
    """A test cluster with what the copies need; `slurm` where sbcast takes part."""

    def __init__(self, cluster: Cluster, slurm: Slurm | None, rate_mbit: float | None) -> None:
        self.cluster = cluster
        self.slurm = slurm
        self.rate_mbit = rate_mbit
        self.names = [node.name for node in cluster.nodes]
        self.job: int | None = None  # the allocation in which sbcast runs

    @property
    def head(self) -> Host:
        return self.cluster.head

    def make_file(self, nbytes: int) -> None:
        """The source is one file of random bytes."""
        self._forget()
        with open(self.head.path(SOURCE), "wb") as file:
            for at in range(0, nbytes, CHUNK):
                file.write(os.urandom(min(CHUNK, nbytes - at)))

    def make_tree(self, files: int, nbytes: int) -> None:
        """The source is a directory with `files` files of `nbytes` each, a hundred to a subdirectory."""
        self._forget()
        top = self.head.path(SOURCE)
        for number in range(files):
            if number % 100 == 0:
                (top / f"d{number // 100:04}").mkdir(parents=True)
            (top / f"d{number // 100:04}" / f"f{number:06}").write_bytes(os.urandom(nbytes))

    def _forget(self) -> None:
        source = self.head.path(SOURCE)
        if source.is_dir():
            shutil.rmtree(source)
        source.unlink(missing_ok=True)

    def clear(self) -> None:
        """Empty every node's destination."""
        for node in self.cluster.nodes:
            if node.pid is not None:
                empty(node.path(OUT))

    def pcp(self, *options: str, nodes: Sequence[str] = ()) -> float:
        """Seconds from the start of the command to its exit; RuntimeError if it fails."""
        words = ["pcp", *options, "-q", "--cluster", STAGE, SOURCE, f"{OUT}/", *(nodes or self.names)]
        return self.timed(words, COPY_SECONDS)

    def timed(self, argv: Sequence[str], limit: float) -> float:
        """Seconds of a command on the head. Raises RuntimeError if it fails, CutOff if it takes longer than `limit`."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        began = time.perf_counter()
        process = self.head.popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **pipes)
        try:
            out, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            taken = time.perf_counter() - began
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise CutOff(taken) from None
        taken = time.perf_counter() - began
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(argv[:8])} ... ended with {process.returncode}: {out[-2000:]}")
        return taken

    def verify(self, names: Sequence[str] = ()) -> None:
        """Every one of these nodes (default: all) has the source, right to the last byte, and nothing else."""
        source = self.head.path(SOURCE)
        for name in names or self.names:
            out = self.cluster[name].path(OUT)
            found = os.listdir(out)
            if found != ["source"] or not same(source, out / "source"):
                raise RuntimeError(f"the copy on {name} is not the source: {found}")

    def cpu(self) -> float:
        """CPU seconds that all processes of the cluster's hosts have used so far, those that ended included."""
        own = os.times()
        total = own.children_user + own.children_system  # commands on hosts are this process's children
        for host in self.cluster.hosts.values():
            for stat in host.path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):  # it has just ended
                    fields = stat.read_text().rpartition(")")[2].split()
                    total += sum(map(int, fields[11:15])) / TICKS  # utime, stime, and those of its children
        return total


def empty(directory: Path) -> None:
    """Make it an empty directory that everybody may write to."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    directory.chmod(0o1777)


def same(one: Path, other: Path) -> bool:
    """Whether two files, or two trees of directories and files, hold the same names and bytes."""
    if one.is_dir():
        names = sorted(os.listdir(one))
        if not other.is_dir() or names != sorted(os.listdir(other)):
            return False
        return all(same(one / name, other / name) for name in names)
    if other.is_dir() or other.is_symlink() or not other.exists() or one.stat().st_size != other.stat().st_size:
        return False
    with open(one, "rb") as a, open(other, "rb") as b:
        while chunk := a.read(CHUNK):
            if chunk != b.read(CHUNK):
                return False
    return True
