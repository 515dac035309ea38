"""Fetching: streams that take the next available block from their feed, and turn to the next name when a feed dies.

A feed is a stripe to prefer and a list of peers, nearest first, the source last. Five seconds of silence, a closed
connection or a block whose MAC is wrong end the use of a peer; the blocks it owed are free for any other stream.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Callable, NamedTuple

from . import wire
from .connection import Connection, Peer, Refused, Tampered
from .digests import DIGEST_SIZE, Hash, content_digest
from .errors import StageError, Unreachable, VerifyError
from .manifest import Manifest, decode
from .replica import Replica

STALL_SECONDS = 12  # of a relay that lives but has nothing for us
SOURCE_SECONDS = 600  # of the source: its file server may be in trouble, and nobody else has the blocks
IDLE_SECONDS = 0.5  # after which a stream takes over what another still owes
PATIENCE_SECONDS = 12  # without a single new block, from anybody
IN_FLIGHT_BYTES = 4 << 20


class Feed(NamedTuple):
    stripe: int
    peers: tuple[Peer, ...]


class Fetcher:
    """All streams of one sink. `note` tells the user what went wrong on the way."""

    def __init__(
        self, replica: Replica, key: bytes, transfer: bytes, chosen: Hash, note: Callable[[str], None]
    ) -> None:
        self._replica = replica
        self._key = key
        self._transfer = transfer
        self._hash = chosen
        self._note = note
        self._distrusted: set[Peer] = set()
        self._reason: StageError | None = None
        self._connections: set[Connection] = set()
        self._feeds: list[Feed] = []
        self._repairing = False  # from the source alone, whatever the head would like
        self._live: dict[int, Connection] = {}  # each stream's
        self._threads: list[threading.Thread] = []
        self._fresh = time.monotonic()
        self.origin: dict[int, str] = {}

    @contextmanager
    def connected(self, peer: Peer) -> Iterator[Connection]:
        """A connection that `stop` can end."""
        connection = Connection(peer, self._key, self._transfer, self._hash)
        self._connections.add(connection)
        try:
            if self._replica.over:  # `stop` may have come before the connection was in its list
                raise ConnectionError("the transfer was stopped")
            yield connection
        finally:
            self._connections.discard(connection)
            connection.close()

    def follow(self, feeds: Sequence[Feed]) -> None:
        """Fetch from these, one for each stripe, from now on: a stream whose parent is another one turns to it at once.

        What it had asked the former parent for is free for any stream.
        """
        with self._replica.changed:
            if self._repairing:
                return
            before, self._feeds = self._feeds, list(feeds)
            turned = [n for n, (old, new) in enumerate(zip(before, feeds)) if old.peers[0] != new.peers[0]]
            for connection in [self._live[n] for n in turned if n in self._live]:
                _end(connection)

    def manifest(self, digest: bytes) -> tuple[Manifest, bytes]:
        """The manifest whose digest the control path gave, from the first peer that has it."""
        started = time.monotonic()
        reason: BaseException | None = None
        forgers: set[Peer] = set()
        while time.monotonic() - started < PATIENCE_SECONDS and not self._replica.over:
            for peer in self._feeds[0].peers:
                try:
                    with self.connected(peer) as connection:
                        encoded = connection.whole(wire.MANIFEST, patience=PATIENCE_SECONDS)
                except (OSError, wire.ProtocolError, Tampered, Refused) as error:
                    reason = error
                    continue
                if self._hash.digest(encoded) == digest:
                    self._replica.offer(encoded)  # it goes down a chain while every node reads it
                    return decode(encoded), encoded
                if peer not in forgers:
                    forgers.add(peer)
                    self._note(f"{peer.name} sent a manifest that is not the source's")
            time.sleep(0.1)
        if isinstance(reason, Refused):
            raise reason.error
        raise Unreachable("no peer gave the manifest: {}".format(reason or "all of them gave a wrong one"))

    def digests(self, source: Peer, blocks: int) -> list[bytes]:
        """The source's digests of all blocks."""
        found = b""
        try:
            with self.connected(source) as connection:
                for first in range(0, blocks, wire.MAX_DIGESTS):
                    found += connection.whole(wire.DIGESTS, first, min(wire.MAX_DIGESTS, blocks - first))
        except Refused as refused:
            raise refused.error from None
        except Tampered:
            raise VerifyError(f"{source.name} sent digests that failed their MAC") from None
        except (OSError, wire.ProtocolError) as error:
            raise Unreachable(f"{source.name} did not send its digests: {error}") from None
        if len(found) != blocks * DIGEST_SIZE:
            raise VerifyError(f"{source.name} sent {len(found)} bytes of digests for {blocks} blocks")
        return [found[at : at + DIGEST_SIZE] for at in range(0, len(found), DIGEST_SIZE)]

    def start(self) -> None:
        """One stream for each feed that `follow` gave."""
        self._fresh = time.monotonic()
        for number in range(len(self._feeds)):
            work = partial(self._stream, number)
            thread = threading.Thread(target=self._replica.guard, args=(work,), name="fetch", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End every stream, also one that waits for a duplicate."""
        for connection in list(self._connections):
            _end(connection)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def repair(self, source: Peer, content: bytes) -> None:
        """The replica's content digest is wrong: find the blocks that are not the source's and fetch them there."""
        replica = self._replica
        right = self.digests(source, replica.layout.blocks)
        if content_digest(self._hash, right) != content:
            raise VerifyError("the source's digests do not fit its content digest")
        wrong = [b for b, digest in enumerate(right) if replica.digests[b] != digest]
        for name in sorted({self.origin.get(b, "an earlier copy") for b in wrong}):
            self._note(f"{name} sent blocks that are not the source's; fetched again from the source")
        with replica.changed:
            for block in wrong:
                replica.map.drop(block)
                replica.bytes_here -= replica.layout.length(block)
        self._repairing = True
        self._feeds = [Feed(0, (source,))]
        self.start()
        with replica.changed:
            while not replica.map.complete and not replica.over:
                replica.changed.wait(1)
        self.stop()
        if replica.failed is None and any(replica.digests[b] != right[b] for b in wrong):
            raise VerifyError(f"{len(wrong)} blocks are still wrong after they were fetched from the source")

    def _stream(self, number: int) -> None:
        replica = self._replica
        lost: set[Peer] = set()
        feed = self._feeds[number]
        at = 0
        while not self._idle():
            peers = [p for p in feed.peers if p not in self._distrusted]
            if not peers:
                replica.fail(VerifyError("no peer is left whose blocks can be trusted"))
                return
            peer = peers[at % len(peers)]
            try:
                self._talk(number, feed, peer)
                return
            except Refused as refused:
                self._reason = refused.error
            except Tampered:
                self._distrusted.add(peer)
                self._note(f"{peer.name} sent a block that failed its MAC; it is not used any more")
            except (OSError, wire.ProtocolError) as error:
                if self._idle():
                    return
                self._reason = Unreachable(f"{peer.name} stopped serving: {error}")
                # a peer is tried again as long as there is patience; one that we were told to leave is no loss
                if peer not in lost and self._feeds[number] is feed:
                    lost.add(peer)
                    self._note(f"feed {peer.name} was lost ({error}); going on with the next")
            finally:
                with replica.changed:
                    replica.map.release(number)
                    replica.changed.notify_all()
            at += 1
            if self._feeds[number] is not feed:
                feed = self._feeds[number]
                at = 0
            elif at % len(peers) == 0:
                if self._impatient():
                    replica.fail(self._reason or Unreachable("no feed answers"))
                    return
                with replica.changed:
                    replica.changed.wait(0.2)

    def _idle(self) -> bool:
        return self._replica.over or self._replica.map.complete

    def _talk(self, number: int, feed: Feed, peer: Peer) -> None:
        replica = self._replica
        stall = SOURCE_SECONDS if peer == feed.peers[-1] else STALL_SECONDS
        with self.connected(peer) as connection:
            with replica.changed:
                if self._feeds[number] is not feed:
                    raise ConnectionError("there is another feed")
                self._live[number] = connection
            buffer = memoryview(bytearray(replica.layout.block))
            window = max(2, min(16, IN_FLIGHT_BYTES // replica.layout.block))
            owed = 0
            idle = time.monotonic()
            while not replica.over:
                with replica.changed:
                    if replica.map.complete:
                        return
                    asked: list[bytes] = []
                    # while others' answers are on their way anyway, asking again would only load the links
                    eager = not owed and time.monotonic() - idle > IDLE_SECONDS
                    while owed + len(asked) < window:
                        block = replica.map.next(number, feed.stripe, duplicate=eager)
                        if block is None:
                            break
                        asked.append(wire.request(wire.BLOCK, block))
                    if not asked and not owed:
                        replica.changed.wait(IDLE_SECONDS / 2)
                        continue
                if asked:
                    connection.ask(b"".join(asked))
                    owed += len(asked)
                got = connection.reply(buffer)
                if got.status == wire.WAIT:
                    if time.monotonic() - self._fresh > stall:
                        raise TimeoutError("it lives but has nothing for us")
                    continue
                owed -= 1
                idle = time.monotonic()
                self._take(connection, got, buffer)

    def _impatient(self) -> bool:
        return time.monotonic() - self._fresh > PATIENCE_SECONDS

    def _take(self, connection: Connection, got: wire.Reply, buffer: memoryview) -> None:
        replica = self._replica
        if got.op != wire.BLOCK or got.block >= replica.layout.blocks:
            raise wire.ProtocolError("not a block of this transfer")
        if got.length != replica.layout.length(got.block):
            raise wire.ProtocolError("a block of the wrong size")
        view = buffer[: got.length]
        digest = connection.payload(got, view)
        with replica.changed:
            replica.fetched += got.length
        if replica.put(got.block, view, digest):
            self.origin[got.block] = connection.peer.name
            self._fresh = time.monotonic()


def _end(connection: Connection) -> None:
    try:
        connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it ended by itself
