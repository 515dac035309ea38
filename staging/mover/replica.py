"""A node's copy, complete or not: which blocks are there, their digests, and who waits for them.

One lock and one condition guard it all. `Publisher` threads wait for blocks, `Fetcher` threads bring them.
"""

from __future__ import annotations

import abc
import threading
from contextlib import AbstractContextManager
from typing import Callable

from .blockmap import BlockMap
from .digests import Bytes, Hash
from .errors import StageError, describe, from_os_error
from .manifest import Layout, Manifest


class Replica(abc.ABC):
    """State shared by the threads of one mover. A subclass says where the bytes are."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.failed: StageError | None = None
        self.closing = False
        self.encoded: bytes | None = None  # the manifest, as every peer gets it
        self.described = False
        self.bytes_here = 0
        self.digests: list[bytes | None] = []
        self.fetched = 0  # bytes that came from peers
        self._writing: set[int] = set()

    def offer(self, encoded: bytes) -> None:
        """The manifest is here: peers may have it already while it is still being read."""
        with self.changed:
            self.encoded = encoded
            self.changed.notify_all()

    def describe(self, manifest: Manifest, encoded: bytes, stripes: int, present: bool) -> None:
        """The manifest is known: from here on peers may ask for blocks."""
        layout = Layout(manifest)
        with self.changed:
            self.manifest = manifest
            self.layout = layout
            self.hash: Hash = manifest.hasher()
            self.map = BlockMap(layout.blocks, stripes)
            self.digests = [None] * layout.blocks
            self.unhashed = layout.blocks  # blocks that `digest_of` has not met yet
            self.bytes_here = 0
            if present:
                for block in range(layout.blocks):
                    self.map.add(block)
                self.bytes_here = layout.bytes
            self.encoded = encoded
            self.described = True
            self.changed.notify_all()

    def fail(self, error: StageError) -> None:
        """The first error ends the replica; the rest follow from it."""
        with self.changed:
            if self.failed is None and not self.closing:
                self.failed = error
            self.changed.notify_all()

    def guard(self, work: Callable[[], None]) -> None:
        """Run `work`, the whole of a thread: an error that ends it is the replica's, so nobody waits for it in vain."""
        try:
            work()
        except StageError as error:
            self.fail(error)
        except OSError as error:
            self.fail(from_os_error(error, "go on"))
        except Exception as error:
            self.fail(StageError(describe(error)[0]))

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify_all()

    @property
    def over(self) -> bool:
        return self.closing or self.failed is not None

    def put(self, block: int, data: Bytes, digest: bytes) -> bool:
        """A block arrived and its MAC was right: keep it. False when it was here already.

        Only one thread writes a block, so the digest that is noted is that of the bytes that were written.
        """
        with self.changed:
            if block in self.map or block in self._writing:
                return False
            self._writing.add(block)
        try:
            self.write(block, data)
        finally:
            with self.changed:
                self._writing.discard(block)
        with self.changed:
            self.map.add(block)
            self.digests[block] = digest
            self.bytes_here += len(data)
            self.changed.notify_all()
        return True

    def digest_of(self, block: int) -> tuple[bytes, Bytes | None]:
        """The block's digest and, where it had to be read for that, its bytes."""
        known = self.digests[block]
        if known is not None:
            return known, None
        data = self.read(block)
        digest = self.hash.digest(data)
        with self.changed:
            self.unhashed -= self.digests[block] is None  # two threads may have read it at once
            self.digests[block] = digest
            self.changed.notify_all()
        return digest, data

    def known_digests(self) -> list[bytes] | None:
        """All the digests, or None while one is missing."""
        digests = [d for d in self.digests if d is not None]
        return digests if len(digests) == len(self.digests) else None

    @abc.abstractmethod
    def read(self, block: int) -> Bytes:
        """The bytes of a block that is here."""

    @abc.abstractmethod
    def write(self, block: int, data: Bytes) -> None:
        """Keep the bytes of a block."""

    @abc.abstractmethod
    def open_entry(self, entry: int) -> AbstractContextManager[int]:
        """A descriptor of the file of this manifest entry, for sendfile."""
