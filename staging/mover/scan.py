"""Reading a source: the walk that makes a manifest, and the check that nothing changed since."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from .errors import SourceChanged, SourceError, UsageError, from_os_error
from .manifest import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry

PAGE = 4096


class Found(NamedTuple):
    """The result of a scan: entries, where each is, what each file looked like, and what was left out."""

    entries: list[Entry]
    paths: list[str]
    stamps: list[tuple[int, int, int]]  # (inode, size, mtime_ns) of each entry, as met
    skipped: list[str]  # sockets, fifos, devices: they hold no data to copy
    directory: bool  # a single source that is a directory


def scan(sources: list[str], contents: bool) -> Found:
    """Walk the sources. With `contents` the single source is a directory whose inside is meant.

    A source named by the caller may be a symbolic link and is followed; links below it are kept as links.
    """
    walk = _Walk()
    single = sources[0] if len(sources) == 1 else ""
    try:
        for source in sources:
            info = os.stat(source)
            if not stat.S_ISDIR(info.st_mode) and not stat.S_ISREG(info.st_mode):
                raise SourceError(f"{source} is {_kind(info.st_mode)}: it holds no data to copy", "name a file")
            if contents:
                if not stat.S_ISDIR(info.st_mode):
                    raise SourceError(f"{source} is not a directory", "name it without the trailing slash")
                walk.add(".", source, info)
                walk.take(_children("", source))
            else:
                walk.take([(os.path.basename(os.path.abspath(source)), source, info)])
    except OSError as error:
        raise from_os_error(error, f"read {error.filename or sources[0]}", source=True) from None
    names = [e.path for e in walk.entries if "/" not in e.path]
    if len(set(names)) < len(names):
        twice = sorted(n for n in names if names.count(n) > 1)[0]
        same = len({os.path.realpath(path) for path, e in zip(walk.paths, walk.entries) if e.path == twice}) == 1
        remedy = "name it once" if same else "copy them to different directories"
        raise UsageError(f"two sources are both named {twice}", remedy)
    directory = bool(single) and bool(walk.entries) and walk.entries[0].kind == DIRECTORY
    return Found(walk.entries, walk.paths, walk.stamps, walk.skipped, directory)


def unchanged(path: str, stamp: tuple[int, int, int]) -> None:
    """Raise SourceChanged, naming the file, unless it is still what the scan met."""
    try:
        info = os.stat(path, follow_symlinks=True)
    except OSError as error:
        raise SourceChanged(f"{path} vanished while it was read: {error.strerror}") from None
    check(path, info, stamp)


def check(path: str, info: os.stat_result, stamp: tuple[int, int, int]) -> None:
    """Raise SourceChanged, naming the file, unless its status is still what the scan met."""
    if (info.st_ino, info.st_size, info.st_mtime_ns) != stamp:
        raise SourceChanged(f"{path} changed while it was read")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "no file")


class _Walk:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.paths: list[str] = []
        self.stamps: list[tuple[int, int, int]] = []
        self.skipped: list[str] = []
        self._links: dict[tuple[int, int], str] = {}
        self._user = os.geteuid()
        self._groups = {os.getegid(), *os.getgroups()}

    def add(
        self,
        name: str,
        path: str,
        info: os.stat_result,
        kind: str = DIRECTORY,
        size: int = 0,
        extents: tuple[tuple[int, int], ...] | None = None,
        target: str = "",
    ) -> None:
        mode = stat.S_IMODE(info.st_mode)
        if kind == FILE and info.st_uid != self._user:
            mode &= ~stat.S_ISUID  # the copy is ours: it must not run as us for what another user wrote
        if kind == FILE and info.st_gid not in self._groups:
            mode &= ~stat.S_ISGID
        self.entries.append(Entry(kind, name, mode, info.st_mtime_ns, size, extents, target))
        self.paths.append(path)
        self.stamps.append((info.st_ino, info.st_size, info.st_mtime_ns))

    def take(self, waiting: list[tuple[str, str, os.stat_result]]) -> None:
        """Take all of (manifest path, path, status) and what is below; a stack, since a tree may be a thousand deep."""
        waiting.reverse()
        while waiting:
            name, path, info = waiting.pop()
            self._one(name, path, info)
            if stat.S_ISDIR(info.st_mode):
                waiting += reversed(_children(name + "/", path))

    def _one(self, name: str, path: str, info: os.stat_result) -> None:
        if stat.S_ISDIR(info.st_mode):
            self.add(name, path, info)
        elif stat.S_ISLNK(info.st_mode):
            self.add(name, path, info, SYMLINK, target=os.readlink(path))
        elif not stat.S_ISREG(info.st_mode):
            self.skipped.append(path)
        elif info.st_nlink > 1 and (info.st_dev, info.st_ino) in self._links:
            self.add(name, path, info, HARDLINK, target=self._links[info.st_dev, info.st_ino])
        else:
            ours = info.st_uid == self._user and info.st_mode & stat.S_IRUSR  # no need to ask: nothing else counts
            if not ours and not os.access(path, os.R_OK, effective_ids=True):
                raise SourceError(f"cannot read {path}: permission denied")
            self.add(name, path, info, FILE, info.st_size, _extents(path, info))
            if info.st_nlink > 1:
                self._links[info.st_dev, info.st_ino] = name


def _children(prefix: str, directory: str) -> list[tuple[str, str, os.stat_result]]:
    with os.scandir(directory) as found:
        children = sorted(found, key=lambda child: child.name)
    return [(prefix + child.name, child.path, child.stat(follow_symlinks=False)) for child in children]


def _extents(path: str, info: os.stat_result) -> tuple[tuple[int, int], ...] | None:
    """The data of a sparse file as (offset, length); None for a file without holes."""
    if info.st_blocks * 512 >= info.st_size or info.st_size < PAGE:
        return None
    found = []
    fd = os.open(path, os.O_RDONLY)
    try:
        at = 0
        while at < info.st_size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                    return None  # this file system cannot tell
                if error.errno != errno.ENXIO:
                    raise
                break  # only a hole is left
            at = min(os.lseek(fd, start, os.SEEK_HOLE), info.st_size)
            found.append((start, at - start))
    finally:
        os.close(fd)
    return None if found == [(0, info.st_size)] else tuple(found)
