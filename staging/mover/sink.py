"""The replica at a destination: blocks become files in the hidden area, files get metadata and their names."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import OrderedDict
from contextlib import AbstractContextManager

from .digests import Bytes
from .earlier import Earlier
from .errors import VerifyError, from_os_error
from .files import OpenFiles
from .manifest import DIRECTORY, FILE, Entry, Manifest, Segment
from .metadata import Metadata
from .replica import Replica
from .staged import Maker
from .target import Area, sweep

RECENT_BYTES = 32 << 20  # of packed blocks kept in memory for the children, who ask for them next


class Sink(Replica):
    def __init__(self, area: Area, preserve: bool, umask: int) -> None:
        super().__init__()
        self.area = area
        self._metadata = Metadata(area, preserve, umask)
        self._committing = False
        self._placed = False
        self._files = OpenFiles(self._open)
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._finished = bytearray()  # for each entry: whether it is a file with all of its bytes and metadata
        self.reused = 0  # bytes that were here before the transfer
        self.skipped = 0  # those of them that nobody read, since size and time are the source's

    def describe(self, manifest: Manifest, encoded: bytes, stripes: int, present: bool) -> None:
        self._finished = bytearray(len(manifest.entries))
        super().describe(manifest, encoded, stripes, present)

    def prepare(self) -> None:
        """The manifest is known: make the directories that the files go into."""
        try:
            for entry in self.manifest.entries:
                if entry.kind == DIRECTORY and entry.path != ".":
                    with contextlib.suppress(FileExistsError):  # of an earlier try
                        os.mkdir(self._staged(entry), 0o700)
        except OSError as error:
            raise from_os_error(error, f"write to {self.area.target.parent}") from None

    # what is here already -------------------------------------------------------------------------------

    def survey(self, quick: bool) -> bool:
        """See what is here, and whether it is worth to `seed`; `quick` trusts files of the source's size and time."""
        self.earlier = Earlier(self.manifest, self._staged, self._final, quick, self.area.found)
        if quick and self.earlier.kept:
            for block in range(self.layout.blocks):
                if all(segment.entry in self.earlier.kept for segment in self.layout.segments(block)):
                    self._have(block)
                    self.skipped += self.layout.length(block)
        return self.earlier.comparable

    def seed(self, digests: list[bytes]) -> None:
        """Take over the blocks that are here already; `digests` are the source's, so nothing is trusted."""
        if self.area.found:
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
            if self._finished[entry]:  # small, and nobody asks for it again soon
                fd = self._open(entry)
                try:
                    os.preadv(fd, [view[at : at + length]], offset)
                finally:
                    os.close(fd)
            else:
                with self.open_entry(entry) as fd:
                    os.preadv(fd, [view[at : at + length]], offset)
            at += length
        return buffer

    def write(self, block: int, data: Bytes) -> None:
        segments = self.layout.segments(block)
        if len(segments) > 1:
            self._write_packed(block, segments, data)
        elif not self._settled(segments[0].entry, segments[0].offset, data):
            self._patch(segments[0], memoryview(data))

    def _write_packed(self, block: int, segments: list[Segment], data: Bytes) -> None:
        entries, finished, metadata = self.manifest.entries, self._finished, self._metadata
        view = memoryview(data)
        at = 0
        with Maker(self.area.tree) as maker:
            for segment in segments:
                index, offset, length = segment
                entry = entries[index]
                piece = view[at : at + length]
                at += length
                if self._settled(index, offset, piece):
                    continue
                mode = metadata.mode(entry)
                # one that nobody may read gets its mode at the end, since children read it before
                if length != entry.size or entry.extents is not None or not mode & stat.S_IRUSR:
                    self._patch(segment, piece)
                    continue
                try:
                    maker.make(entry.path, piece, mode, metadata.mtime_ns(entry))
                except OSError as error:
                    raise from_os_error(error, f"write {self._final(entry)}") from None
                finished[index] = 1
        with self.changed:
            self._recent[block] = bytes(data)
            while len(self._recent) * self.layout.block > RECENT_BYTES:
                self._recent.popitem(last=False)

    def _patch(self, segment: Segment, piece: memoryview) -> None:
        """Write into a file that may have more bytes than these."""
        index, offset, length = segment
        try:
            with self._files.use(index) as fd:
                done = 0
                while done < length:
                    done += os.pwrite(fd, piece[done:], offset + done)
        except OSError as error:
            raise from_os_error(error, f"write {self._final(self.manifest.entries[index])}") from None

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
        if not (self._committing or self._finished[key]):
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
            with Maker(self.area.tree) as maker:
                for index, entry in enumerate(manifest.entries):
                    if not self._finished[index] and index not in self.earlier.kept:
                        self._metadata.finish(entry, maker)
            merged = self.area.place()
            self._placed = True
            self.area.release(keep=False)  # before the directory that holds it gets its time
            self._metadata.refresh(manifest.entries[index] for index in self.earlier.kept)
            self._metadata.dress_directories(manifest.entries, merged)
        except OSError as error:
            raise from_os_error(error, f"finish {self.area.target.parent}") from None

    def release(self, keep: bool) -> bool:
        """Close everything; True when a partial replica was kept for resuming."""
        self._files.close()
        kept = self.area.release(keep and not self._placed)
        sweep(self.area.target.parent, time.time())
        return kept
