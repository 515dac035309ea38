"""What the mover's tests share: odd trees to move, another user's eyes, and members of a transfer in this process."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from staging.mover.connection import Peer
from staging.mover.digests import HASHES, Bytes, content_digest
from staging.mover.fetch import Feed, Fetcher
from staging.mover.manifest import FILE, Entry, Manifest
from staging.mover.pace import Pacer
from staging.mover.replica import Replica
from staging.mover.serve import Publisher
from support.polling import until

ROOT = os.geteuid() == 0
NOBODY = 65534
HASH = HASHES["blake2b"]
KEY = bytes(range(32))
TRANSFER = bytes(range(16))
SECONDS = 20.0  # the longest that anything here may take; a test that gets near it is broken

ODD_NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"\xff\xfe not utf-8",
    "h\u00e9llo \U0001f600".encode(),
    b"-rf",
    b"*?[a]",
    b"..x",
]


# files --------------------------------------------------------------------------------------------------


def make_odd_tree(top: Path) -> None:
    """Names, kinds, modes and times of every sort, data with and without holes."""
    top.mkdir(parents=True)
    for number, name in enumerate(ODD_NAMES):
        (top / os.fsdecode(name)).write_bytes(bytes([number]) * (number * 1500))
    sub = top / "sub"
    sub.mkdir()
    (sub / "empty").touch()
    (sub / "no entries").mkdir()
    (sub / "relative").symlink_to("../plain")
    (sub / "dangling").symlink_to(os.fsdecode(b"/nowhere/\xff"))
    os.link(top / "with space", sub / "hard link")
    write_sparse(sub / "sparse", 1 << 20, {0: b"begin", 1 << 19: b"middle"})
    write_sparse(sub / "hole", 1 << 20, {})
    (sub / "script").write_text("#!/bin/sh\n")
    (sub / "script").chmod(0o750)
    (sub / "read only").write_text("r")
    (sub / "read only").chmod(0o400)
    closed = top / "closed"
    closed.mkdir()
    (closed / "inside").write_text("inside")
    closed.chmod(0o555)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        when = 1_000_000_000 * 10**9 + number * 1_000_000_007
        os.utime(path, ns=(when, when), follow_symlinks=False)
    os.utime(top, ns=(5, 123_456_789))


def write_sparse(path: Path, size: int, data: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in data.items():
            file.seek(offset)
            file.write(piece)


def make_deep(top: Path, depth: int) -> str:
    """Directories in each other, `top` the first of them; the path of the last."""
    top.mkdir()
    path = str(top)
    for _ in range(depth - 1):
        path += "/d"
        os.mkdir(path)
    return path


@contextmanager
def few_frames_and_descriptors() -> Iterator[None]:
    """Room for some forty more calls and twenty more descriptors: what recurses into a tree of 100 levels fails."""
    frames, limits = sys.getrecursionlimit(), resource.getrlimit(resource.RLIMIT_NOFILE)
    depth = sum(1 for _ in traceback.walk_stack(None))
    highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    sys.setrecursionlimit(depth + 40)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        sys.setrecursionlimit(frames)


def listing(top: Path, times: bool = True, modes: bool = True) -> dict[str, tuple[Any, ...]]:
    """All that a copy must share with a tree: kinds, modes, times, contents, targets, and who is linked to whom."""
    found: dict[str, tuple[Any, ...]] = {}
    first: dict[int, str] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        info = path.lstat()
        name = str(path.relative_to(top))
        if stat.S_ISLNK(info.st_mode):
            what: Any = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            what = (path.read_bytes(), first.setdefault(info.st_ino, name))
        else:
            what = None
        mode = stat.S_IMODE(info.st_mode) if modes and not stat.S_ISLNK(info.st_mode) else None
        found[name] = (stat.S_IFMT(info.st_mode), mode, info.st_mtime_ns if times else None, what)
    return found


def open_count() -> int:
    """Descriptors that this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Run the block without root's rights; gives a directory in which it may write."""
    top = Path(tempfile.mkdtemp(prefix="mover"))
    try:
        if not ROOT:
            yield top
            return
        os.chown(top, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            yield top
        finally:
            os.seteuid(0)
            os.setegid(0)
    finally:
        for base, names, _ in os.walk(top):
            for name in names:
                if not os.path.islink(os.path.join(base, name)):
                    os.chmod(os.path.join(base, name), 0o700)
        shutil.rmtree(top)


# replicas in memory, and who serves and fetches them ----------------------------------------------------


def flat_manifest(*sizes: int, block: int = 1024) -> Manifest:
    """Files f0, f1, ... of these sizes."""
    entries = tuple(Entry(FILE, f"f{n}", 0o644, 0, size) for n, size in enumerate(sizes))
    return Manifest(entries, block, HASH.name)


class Held(Replica):
    """A replica in anonymous memory: sockets are what is tested with it, not disks."""

    def __init__(self) -> None:
        super().__init__()
        self._fds: dict[int, int] = {}

    @classmethod
    def full(cls, manifest: Manifest, data: bytes) -> Held:
        """A replica that has it all."""
        held = cls()
        held.describe(manifest, manifest.encode(), 1, present=True)
        size = manifest.block
        for block in range(held.layout.blocks):
            held.write(block, data[block * size : (block + 1) * size])
        return held

    def content(self) -> bytes:
        return b"".join(self.read(block) for block in range(self.layout.blocks))

    def read(self, block: int) -> Bytes:
        return b"".join(os.pread(self._fd(s.entry), s.length, s.offset) for s in self.layout.segments(block))

    def write(self, block: int, data: Bytes) -> None:
        at = 0
        for entry, offset, length in self.layout.segments(block):
            os.pwrite(self._fd(entry), data[at : at + length], offset)
            at += length

    @contextmanager
    def open_entry(self, entry: int) -> Iterator[int]:
        yield self._fd(entry)

    def root(self) -> bytes:
        """The content digest."""
        return content_digest(self.hash, [self.digest_of(b)[0] for b in range(self.layout.blocks)])

    def release(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _fd(self, entry: int) -> int:
        with self.changed:
            if entry not in self._fds:
                self._fds[entry] = os.memfd_create("replica")
            return self._fds[entry]


class Member:
    """One member of a transfer: a replica in memory, published, and what fetches it."""

    def __init__(
        self, name: str, replica: Held, host: str = "127.0.0.1", key: bytes = KEY, pacer: Pacer | None = None
    ) -> None:
        self.replica = replica
        self.notes: list[str] = []
        self.publisher = Publisher(replica, key, TRANSFER, host, HASH, pacer)
        self.fetcher = Fetcher(replica, key, TRANSFER, HASH, self.notes.append)
        self.peer = Peer(name, *self.publisher.endpoint)

    def fetch(self, manifest: Manifest, *feeds: Sequence[Peer]) -> None:
        """Start one stream for each feed, feed k preferring stripe k."""
        self.replica.describe(manifest, manifest.encode(), len(feeds), present=False)
        self.fetcher.follow([Feed(stripe, tuple(peers)) for stripe, peers in enumerate(feeds)])
        self.fetcher.start()

    def wait(self) -> Held:
        """The complete replica; raises what it failed with."""
        replica = self.replica
        with replica.changed:
            assert replica.changed.wait_for(lambda: replica.map.complete or replica.over, SECONDS), "no end in time"
        self.fetcher.stop()
        if replica.failed is not None:
            raise replica.failed
        return replica

    def close(self) -> None:
        self.replica.close()
        self.fetcher.stop()
        self.publisher.close()
        self.replica.release()


class Transfer:
    """Makes members and ends them."""

    def __init__(self) -> None:
        self._members: list[Member] = []

    def source(self, manifest: Manifest, data: bytes, name: str = "source", **more: Any) -> Member:
        return self.add(name, Held.full(manifest, data), **more)

    def sink(self, name: str = "sink", **more: Any) -> Member:
        return self.add(name, Held(), **more)

    def add(self, name: str, replica: Held, **more: Any) -> Member:
        self._members.append(Member(name, replica, **more))
        return self._members[-1]

    def close(self) -> None:
        for member in self._members:
            member.close()


@contextmanager
def transfer() -> Iterator[Transfer]:
    """Members of one transfer; when they have ended, no thread and no descriptor of theirs is left."""
    threads, descriptors = set(threading.enumerate()), open_count()
    made = Transfer()
    try:
        yield made
    finally:
        made.close()
    # one that had just ended by itself when its publisher was closed is not waited for there
    until("the threads have ended", lambda: set(threading.enumerate()) <= threads)
    until("the descriptors are closed", lambda: open_count() <= descriptors)
