"""The replica at a destination: blocks become files in the hidden area, files get metadata and their names."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import OrderedDict
from contextlib import AbstractContextManager

from .digests import Bytes
from .earlier import Earlier
from .errors import VerifyError, from_os_error
from .files import OpenFiles
from .manifest import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, Manifest
from .replica import Replica
from .target import DIR_FLAGS, Area

RECENT = 16  # packed blocks kept in memory for the children, who ask for them next


class Sink(Replica):
    def __init__(self, area: Area, preserve: bool, umask: int) -> None:
        super().__init__()
        self.area = area
        self._preserve = preserve
        self._umask = umask
        self._committing = False
        self._placed = False
        self._files = OpenFiles(self._open)
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self.reused = 0  # bytes that were here before the transfer
        self.skipped = 0  # those of them that nobody read, since size and time are the source's

    def prepare(self) -> None:
        """The manifest is known: make the directories that the files go into."""
        try:
            for entry in self.manifest.entries:
                if entry.kind == DIRECTORY and entry.path != ".":
                    os.makedirs(self._staged(entry), mode=0o700, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, f"write to {self.area.target.parent}") from None

    # what is here already -------------------------------------------------------------------------------

    def survey(self, quick: bool) -> bool:
        """See what is here, and whether it is worth to `seed`; `quick` trusts files of the source's size and time."""
        self.earlier = Earlier(self.manifest, self._staged, self._final, quick)
        if quick and self.earlier.kept:
            for block in range(self.layout.blocks):
                if all(segment.entry in self.earlier.kept for segment in self.layout.segments(block)):
                    self._have(block)
                    self.skipped += self.layout.length(block)
        return self.earlier.comparable

    def seed(self, digests: list[bytes]) -> None:
        """Take over the blocks that are here already; `digests` are the source's, so nothing is trusted."""
        self._reopen()
        good: list[int] = []
        spoilt: set[int] = set()
        for block in range(self.layout.blocks):
            if self.over:
                return
            if block in self.map:
                continue
            data = self._peek(block)
            segments = self.layout.segments(block)
            if data is not None and self.hash.digest(data) == digests[block]:
                good.append(block)
            elif len(segments) == 1:
                spoilt.add(segments[0].entry)
        self.earlier.keep_all_but(spoilt)
        for block in good:
            if any(self.earlier.is_elsewhere(segment.entry) for segment in self.layout.segments(block)):
                data = self._peek(block)
                if data is None or self.hash.digest(data) != digests[block]:
                    continue
                self.write(block, data)
            self._have(block, digests[block])

    def _have(self, block: int, digest: bytes | None = None) -> None:
        with self.changed:
            self.map.add(block)
            self.digests[block] = digest
            self.bytes_here += self.layout.length(block)
            self.reused += self.layout.length(block)
            self.changed.notify_all()

    def complete_digests(self, digests: list[bytes]) -> None:
        """Take the source's word for the blocks that were skipped and nobody has read since."""
        with self.changed:
            self.digests = [own or told for own, told in zip(self.digests, digests)]

    def kept_bytes(self) -> int:
        """Data of the files that stay as they are, for which no room is needed."""
        entries = self.manifest.entries
        return sum(length for index in self.earlier.kept for _, length in entries[index].data())

    def _reopen(self) -> None:
        """A transfer that was killed while it gave files their modes may have left some that cannot be written."""
        for entry in self.manifest.entries:
            if entry.kind == FILE:
                with contextlib.suppress(FileNotFoundError):
                    os.chmod(self._staged(entry), 0o600)

    def _peek(self, block: int) -> bytearray | None:
        buffer = bytearray(self.layout.length(block))
        view = memoryview(buffer)
        at = 0
        for entry, offset, length in self.layout.segments(block):
            try:
                fd = os.open(self.earlier.path(entry), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                return None
            try:
                if os.preadv(fd, [view[at : at + length]], offset) != length:
                    return None
            finally:
                os.close(fd)
            at += length
        return buffer

    # blocks ---------------------------------------------------------------------------------------------

    def read(self, block: int) -> Bytes:
        recent = self._recent.get(block)
        if recent is not None:
            return recent
        buffer = bytearray(self.layout.length(block))
        view = memoryview(buffer)
        at = 0
        for entry, offset, length in self.layout.segments(block):
            with self.open_entry(entry) as fd:
                os.preadv(fd, [view[at : at + length]], offset)
            at += length
        return buffer

    def write(self, block: int, data: Bytes) -> None:
        segments = self.layout.segments(block)
        view = memoryview(data)
        at = 0
        try:
            for entry, offset, length in segments:
                if not self._settled(entry, offset, view[at : at + length]):
                    with self._files.use(entry) as fd:
                        done = 0
                        while done < length:
                            done += os.pwrite(fd, view[at + done : at + length], offset + done)
                at += length
        except OSError as error:
            name = self._final(self.manifest.entries[segments[0].entry])
            raise from_os_error(error, f"write {name}") from None
        if len(segments) > 1:
            with self.changed:
                self._recent[block] = bytes(data)
                while len(self._recent) > RECENT:
                    self._recent.popitem(last=False)

    def _settled(self, index: int, offset: int, piece: Bytes) -> bool:
        try:
            return self.earlier.settles(index, offset, piece)
        except ValueError:
            name = self._final(self.manifest.entries[index])
            raise VerifyError(f"{name} has the source's size and time but other bytes", "give --checksum") from None

    def open_entry(self, entry: int) -> AbstractContextManager[int]:
        return self._files.use(~entry if entry in self.earlier.kept else entry)

    def _open(self, key: int) -> int:
        """`key`: the number of an entry, or its complement for a file that stays under its name."""
        entry = self.manifest.entries[max(key, ~key)]
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        if key < 0:
            return os.open(self._final(entry), flags | os.O_RDONLY)
        if not self._committing:
            return os.open(self._staged(entry), flags | os.O_RDWR | os.O_CREAT, 0o600)
        try:
            return os.open(self._staged(entry), flags | os.O_RDONLY)
        except FileNotFoundError:  # it has its name by now
            return os.open(self._final(entry), flags | os.O_RDONLY)

    def _staged(self, entry: Entry) -> str:
        return os.path.join(self.area.tree, entry.path)

    def _final(self, entry: Entry) -> str:
        return self.area.target.final(entry.path)

    # the end --------------------------------------------------------------------------------------------

    def commit(self, manifest: Manifest) -> None:
        """Every block is right: links, metadata, names. Nothing is visible before this."""
        self._committing = True
        try:
            for index, entry in enumerate(manifest.entries):
                if index not in self.earlier.kept:
                    self._finish(entry)
            merged = self.area.place()
            self._placed = True
            self.area.release(keep=False)  # before the directory that holds it gets its time
            if self._preserve:
                self._refresh()
            self._dress_directories(merged)
        except OSError as error:
            raise from_os_error(error, f"finish {self.area.target.parent}") from None

    def _finish(self, entry: Entry) -> None:
        path = self._staged(entry)
        if entry.kind == FILE:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, entry.size)
                self._dress(fd, entry)
            finally:
                os.close(fd)
        elif entry.kind == SYMLINK:
            _replace(path)
            os.symlink(entry.target, path)
            if self._preserve:
                os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        elif entry.kind == HARDLINK:
            _replace(path)
            staged, final = os.path.join(self.area.tree, entry.target), self.area.target.final(entry.target)
            if os.path.lexists(staged):
                os.link(staged, path)
            elif not _linked(final, self._final(entry)):
                os.link(final, path)

    def _dress(self, fd: int, entry: Entry) -> None:
        os.fchmod(fd, entry.mode if self._preserve else entry.mode & 0o777 & ~self._umask)
        if self._preserve:
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _refresh(self) -> None:
        """Modes and times of what stayed."""
        for index in self.earlier.kept:
            entry = self.manifest.entries[index]
            if entry.kind == SYMLINK:
                if os.lstat(self._final(entry)).st_mtime_ns != entry.mtime_ns:
                    os.utime(self._final(entry), ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
                continue
            fd = os.open(self._final(entry), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                info = os.fstat(fd)
                if (stat.S_IMODE(info.st_mode), info.st_mtime_ns) != (entry.mode, entry.mtime_ns):
                    self._dress(fd, entry)
            finally:
                os.close(fd)

    def _dress_directories(self, merged: set[str]) -> None:
        # deepest first, since a directory's time changes when something in it does, and its mode may forbid it
        for entry in reversed(self.manifest.entries):
            if entry.kind != DIRECTORY:
                continue
            path = self._final(entry)
            there_before = path in merged or (entry.path == "." and not self.area.target.whole)
            if there_before and not self._preserve:
                continue
            fd = os.open(path, DIR_FLAGS if entry.path != "." else DIR_FLAGS & ~os.O_NOFOLLOW)
            try:
                self._dress(fd, entry)
            finally:
                os.close(fd)

    def release(self, keep: bool) -> bool:
        """Close everything; True when a partial replica was kept for resuming."""
        self._files.close()
        return self.area.release(keep and not self._placed)


def _linked(left: str, right: str) -> bool:
    try:
        return os.path.samestat(os.lstat(left), os.lstat(right))
    except FileNotFoundError:
        return False


def _replace(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
