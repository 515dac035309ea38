"""What a file is besides its bytes: links, modes and times, given before names or, to directories, at the very end."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence

from .files import DIR_FLAGS
from .manifest import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry
from .staged import Maker
from .target import Area


class Metadata:
    """Of one copy. Without `preserve` modes are masked as those of new files are, and times are those of the copy."""

    def __init__(self, area: Area, preserve: bool, umask: int) -> None:
        self._area = area
        self._preserve = preserve
        self._umask = umask

    def mode(self, entry: Entry) -> int:
        """The mode that the copy is to have."""
        return entry.mode if self._preserve else entry.mode & 0o777 & ~self._umask

    def mtime_ns(self, entry: Entry) -> int | None:
        """The time that the copy is to have; None: whatever it gets."""
        return entry.mtime_ns if self._preserve else None

    def finish(self, entry: Entry, maker: Maker) -> None:
        """Make the staged entry what it is to be; the bytes of a file are there already."""
        path = os.path.join(self._area.tree, entry.path)
        if entry.kind == FILE and not entry.size:
            maker.make(entry.path, b"", self.mode(entry), self.mtime_ns(entry))
        elif entry.kind == FILE:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, entry.size)
                self._dress(fd, entry)
            finally:
                os.close(fd)
        elif entry.kind == SYMLINK:
            _remove(path)
            os.symlink(entry.target, path)
            if self._preserve:
                os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        elif entry.kind == HARDLINK:
            _remove(path)
            staged, final = os.path.join(self._area.tree, entry.target), self._area.target.final(entry.target)
            if os.path.lexists(staged):
                os.link(staged, path)
            elif not _linked(final, self._area.target.final(entry.path)):
                os.link(final, path)

    def refresh(self, kept: Iterable[Entry]) -> None:
        """Modes and times of files and links that stay under their names."""
        if not self._preserve:
            return
        for entry in kept:
            path = self._area.target.final(entry.path)
            info = os.lstat(path)
            if entry.kind == SYMLINK:
                if info.st_mtime_ns != entry.mtime_ns:
                    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
            elif (stat.S_IMODE(info.st_mode), info.st_mtime_ns) != (entry.mode, entry.mtime_ns):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    self._dress(fd, entry)
                finally:
                    os.close(fd)

    def dress_directories(self, entries: Sequence[Entry], merged: set[str]) -> None:
        """Modes and times of directories under their names; those in `merged` were there before."""
        # deepest first, since a directory's time changes when something in it does, and its mode may forbid it
        for entry in reversed(entries):
            if entry.kind != DIRECTORY:
                continue
            path = self._area.target.final(entry.path)
            there_before = path in merged or (entry.path == "." and not self._area.target.whole)
            if there_before and not self._preserve:
                continue
            fd = os.open(path, DIR_FLAGS if entry.path != "." else DIR_FLAGS & ~os.O_NOFOLLOW)
            try:
                self._dress(fd, entry)
            finally:
                os.close(fd)

    def _dress(self, fd: int, entry: Entry) -> None:
        os.fchmod(fd, self.mode(entry))
        if self._preserve:
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def _linked(left: str, right: str) -> bool:
    try:
        return os.path.samestat(os.lstat(left), os.lstat(right))
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
