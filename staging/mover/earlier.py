"""What is at a destination before a transfer: parts of an interrupted one, and files that have their names.

A file that is right under its name is kept: it is neither fetched nor written, and its inode stays.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Collection
from typing import Callable

from .digests import Bytes
from .manifest import FILE, SYMLINK, Entry, Manifest

PathOf = Callable[[Entry], str]


class Earlier:
    """Sets of manifest entries, by number. With `quick` a file of the source's size and time is kept unread.

    `interrupted`: whether an earlier transfer may have left something in the area.
    """

    def __init__(
        self, manifest: Manifest, staged: PathOf, final: PathOf, quick: bool, interrupted: bool = True
    ) -> None:
        self._entries = manifest.entries
        self._staged_path = staged
        self._final_path = final
        self.kept: set[int] = set()
        self._staged: set[int] = set()  # files that an interrupted transfer left
        self._named: set[int] = set()  # files of the right size under their names
        self._trusted: set[int] = set()  # those of them that were taken for right without a look at their bytes
        self._copied: set[int] = set()  # of the named ones: those that made room for a copy
        self._lock = threading.Lock()
        some = any(os.path.lexists(final(entry)) for entry in self._entries if "/" not in entry.path)
        for index, entry in enumerate(self._entries if some or interrupted else ()):
            if entry.kind not in (FILE, SYMLINK):
                continue
            if some:
                self._look(index, entry, quick)
            if not interrupted:
                continue
            if index in self.kept:
                _remove(staged(entry))  # or it would take the place of the file that stays
            elif entry.kind == FILE and os.path.lexists(staged(entry)):
                self._staged.add(index)

    def _look(self, index: int, entry: Entry, quick: bool) -> None:
        path = self._final_path(entry)
        try:
            info = os.lstat(path)
        except OSError:
            return
        if entry.kind == SYMLINK:
            if stat.S_ISLNK(info.st_mode) and os.readlink(path) == entry.target:
                self.kept.add(index)
        elif stat.S_ISREG(info.st_mode) and info.st_size == entry.size:
            self._named.add(index)
            if quick and info.st_mtime_ns == entry.mtime_ns:
                self._trusted.add(index)
            if not entry.size or index in self._trusted:
                self.kept.add(index)

    @property
    def comparable(self) -> bool:
        """Whether there are files that may hold blocks, so that the source's digests are worth asking for."""
        return any(self._entries[index].size for index in self._staged | self._named - self.kept)

    def path(self, index: int) -> str:
        """Where bytes of this file may be found; "" for nowhere."""
        if index in self._staged:
            return self._staged_path(self._entries[index])
        return self._final_path(self._entries[index]) if index in self._named else ""

    def is_elsewhere(self, index: int) -> bool:
        """Whether what is known of the file is under its name, in a file that does not stay."""
        return index not in self._staged and index not in self.kept

    def keep_all_but(self, spoilt: Collection[int]) -> None:
        """All blocks were compared: the files under their names stay but for those that have a wrong one of their own.

        Of a wrong block that files share nobody knows yet which is to blame: `settles` finds out when it comes.
        """
        for index in self._named - self._staged:
            if (
                index not in spoilt and self._entries[index].extents is None
            ):  # blocks say nothing about what is in holes
                self.kept.add(index)

    def settles(self, index: int, offset: int, piece: Bytes) -> bool:
        """Whether these right bytes of the file, just received, are in a file that stays.

        One that turns out not to be right makes room for a copy. ValueError where that cannot be made, as it was taken
        for right by its size and time.
        """
        if index not in self._named or index in self._staged:
            return False
        entry = self._entries[index]
        whole = len(piece) == entry.size
        with self._lock:
            if not whole and index not in self.kept:
                return False
            if _holds(self._final_path(entry), offset, piece):
                self.kept.add(index)
                if index in self._copied:  # of bytes that were not the source's
                    self._copied.discard(index)
                    _remove(self._staged_path(entry))
                return True
            if not whole and index in self._trusted:
                raise ValueError
            if not whole:
                shutil.copyfile(self._final_path(entry), self._staged_path(entry))
            self.kept.discard(index)
            self._copied.add(index)
            return False


def _holds(path: str, offset: int, piece: Bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pread(fd, len(piece), offset) == piece
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
