"""The replica at the source: the user's own files, read only, watched for changes."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from .digests import Bytes, content_digest
from .errors import SourceChanged, StageError, from_os_error
from .files import OpenFiles
from .manifest import FILE, Manifest
from .replica import Replica
from .scan import Found, check, unchanged


class Source(Replica):
    def __init__(self, found: Found, manifest: Manifest) -> None:
        super().__init__()
        self._paths = found.paths
        self._stamps = found.stamps
        self._files = OpenFiles(lambda entry: os.open(self._paths[entry], os.O_RDONLY | os.O_CLOEXEC))
        self.describe(manifest, manifest.encode(), 1, present=True)

    def read(self, block: int) -> Bytes:
        """The bytes of a block; SourceChanged when a file of it is not what the scan met."""
        buffer = bytearray(self.layout.length(block))
        view = memoryview(buffer)
        at = 0
        for entry, offset, length in self.layout.segments(block):
            path, stamp = self._paths[entry], self._stamps[entry]
            try:
                if length == stamp[1]:  # all of it: nobody asks for it again soon
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        got = os.preadv(fd, [view[at : at + length]], offset)
                        check(path, os.fstat(fd), stamp)
                    finally:
                        os.close(fd)
                else:
                    with self._files.use(entry) as fd:
                        got = os.preadv(fd, [view[at : at + length]], offset)
                    unchanged(path, stamp)
            except OSError as error:
                unchanged(path, stamp)
                raise from_os_error(error, f"read {path}", source=True) from None
            if got != length:
                raise SourceChanged(f"{path} is shorter than it was when the transfer began")
            at += length
        return buffer

    def write(self, block: int, data: Bytes) -> None:
        raise StageError("a source is never written to")

    def open_entry(self, entry: int) -> AbstractContextManager[int]:
        unchanged(self._paths[entry], self._stamps[entry])
        return self._files.use(entry)

    def seal(self) -> bytes:
        """Hash what nobody asked for, check every file once more, and return the content digest."""
        for block in range(self.layout.blocks):
            if self.over:
                break
            self.digest_of(block)
        for entry, path, stamp in zip(self.manifest.entries, self._paths, self._stamps):
            if entry.kind == FILE:
                unchanged(path, stamp)
        known = self.known_digests()
        if known is None:
            raise StageError("the source was closed before it was read to the end")
        return content_digest(self.hash, known)

    def release(self) -> None:
        self._files.close()
