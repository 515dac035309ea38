"""One mover's part in one transfer: source or sink, driven by control lines, reporting by events."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable

from .connection import Peer
from .digests import HASHES, available, content_digest
from .errors import Interrupted, StageError, TemporaryError, Unreachable, UsageError
from .fetch import Feed, Fetcher
from .manifest import Manifest, choose_block, file_entries
from .pace import Pacer
from .replica import Replica
from .scan import scan
from .serve import Publisher
from .sink import Sink
from .source import Source
from .target import Area, locate, resolve

Emit = Callable[[dict[str, Any]], None]
PROGRESS_SECONDS = 0.5
ALIVE_SECONDS = 2.0


class Session:
    """Common to both roles: the endpoint, the key, the life signs."""

    replica: Replica

    def __init__(self, order: dict[str, Any], emit: Emit) -> None:
        self.emit = emit
        self.key = bytes.fromhex(order["key"])
        self.transfer = bytes.fromhex(order["transfer"])
        self.host = str(order["host"])
        self.rate = int(order.get("rate") or 0)
        self.progress_seconds = PROGRESS_SECONDS
        self._worker: threading.Thread | None = None
        self._told = (-1, 0.0)

    def publish(self, replica: Replica, hash_name: str) -> list[Any]:
        self.replica = replica
        pacer = Pacer(self.rate) if self.rate else None
        self.publisher = Publisher(replica, self.key, self.transfer, self.host, HASHES[hash_name], pacer)
        return list(self.publisher.endpoint)

    def handle(self, order: dict[str, Any]) -> None:
        raise UsageError("a mover in this role does not know the order {!r}".format(order["op"]))

    def spawn(self, work: Callable[[], None]) -> None:
        """Do the long part in a thread; its error is the replica's."""
        self._worker = threading.Thread(target=self.replica.guard, args=(work,), name="work", daemon=True)
        self._worker.start()

    def tick(self, now: float) -> None:
        """Tell how far it is; at least every two seconds, so that silence means trouble."""
        here = self.replica.bytes_here if self.replica.encoded is not None else 0
        bytes_told, at = self._told
        if now - at >= ALIVE_SECONDS or (here != bytes_told and now - at >= self.progress_seconds):
            self._told = (here, now)
            self.emit({"event": "progress", "bytes": here})

    def close(self, keep: bool) -> bool:
        """End all threads and let go of the files; True when a partial replica was kept."""
        self.replica.close()
        self.publisher.close()
        if self._worker is not None:
            self._worker.join()
        return False


class SourceSession(Session):
    def __init__(self, order: dict[str, Any], emit: Emit) -> None:
        super().__init__(order, emit)
        root = str(order.get("root", ""))
        found = scan([locate(root, str(s)) for s in order["sources"]], bool(order["contents"]))
        total = sum(length for entry in found.entries for _, length in entry.data())
        block = int(order.get("block") or 0) or choose_block(total, int(order.get("nodes") or 1), self.rate)
        manifest = Manifest(tuple(found.entries), block, available()[0], bool(order["contents"]))
        source = self.source = Source(found, manifest)
        chosen = manifest.hasher()
        self.emit(
            {
                "event": "opened",
                "endpoint": self.publish(source, manifest.hash),
                "skipped": found.skipped,
                "manifest": {
                    "identity": manifest.identity().hex(),
                    "digest": chosen.digest(source.encoded or b"").hex(),
                    "hash": manifest.hash,
                    "block": block,
                    "blocks": source.layout.blocks,
                    "bytes": source.layout.bytes,
                    "files": file_entries(manifest.entries),
                    "tops": manifest.tops()[:2],  # one or more, no destination depends on anything else
                    "contents": manifest.contents,
                    "directory": found.directory,
                },
            }
        )
        self._asked = False
        self.spawn(self._seal)

    def handle(self, order: dict[str, Any]) -> None:
        if order["op"] != "seal":
            super().handle(order)
        with self.source.changed:
            self._asked = True
            self.source.changed.notify_all()

    def _seal(self) -> None:
        """Tell the content digest: as soon as every block has been read, or when it is asked for."""
        source = self.source
        with source.changed:
            while source.unhashed and not self._asked and not source.over:
                source.changed.wait()
        if not source.over:
            self.emit({"event": "root", "digest": source.seal().hex()})

    def close(self, keep: bool) -> bool:
        super().close(keep)
        self.source.release()
        return False


class SinkSession(Session):
    def __init__(self, order: dict[str, Any], emit: Emit) -> None:
        super().__init__(order, emit)
        self.summary = order["manifest"]
        if self.summary["hash"] not in HASHES:
            raise StageError("this host cannot check {} digests".format(self.summary["hash"]), "install blake3 here")
        target = resolve(str(order["root"]), str(order["dest"]), str(order["into"]), self.summary)
        umask = os.umask(0)
        os.umask(umask)
        self.area = Area(target, str(self.summary["identity"]), bool(order["parents"]))
        # what is there may not have to be fetched: then the room is looked at when that is known
        self._merging = not self.area.vacant(self.summary["tops"])
        try:
            if not self._merging:
                self.area.need(int(self.summary["bytes"]))
            self.sink = Sink(self.area, bool(order["preserve"]), umask)
            endpoint = self.publish(self.sink, self.summary["hash"])
        except BaseException:
            self.area.release(keep=True)
            raise
        self.fetcher = Fetcher(
            self.sink, self.key, self.transfer, HASHES[self.summary["hash"]], lambda text: self._note(text)
        )
        self._quick = bool(order["preserve"]) and not order.get("checksum", True)
        self.started = 0.0
        self._root: bytes | None = None
        self._latest = 0
        self.emit({"event": "opened", "endpoint": endpoint})

    def _note(self, text: str) -> None:
        self.emit({"event": "note", "message": text})

    def handle(self, order: dict[str, Any]) -> None:
        if order["op"] == "run":
            source = Peer(*order["source"])
            self.progress_seconds = float(order.get("every", PROGRESS_SECONDS))
            if order.get("root"):  # it came before this mover was there to be told; else it may be here already
                self._root = bytes.fromhex(order["root"])
            self._turn(order)
            self.spawn(lambda: self._run(int(order["stripes"]), source))
        elif order["op"] == "feeds":
            self._turn(order)
        elif order["op"] == "root":
            with self.sink.changed:
                self._root = bytes.fromhex(order["digest"])
                self.sink.changed.notify_all()
        else:
            super().handle(order)

    def _turn(self, order: dict[str, Any]) -> None:
        """Follow the feeds of an order; the two kinds come by different ways, so a later one may be here first."""
        turn = int(order.get("turn", 0))
        if turn >= self._latest:
            self._latest = turn
            feeds = [Feed(int(f["stripe"]), tuple(Peer(*p) for p in f["peers"])) for f in order["feeds"]]
            self.fetcher.follow(feeds)

    def _run(self, stripes: int, source: Peer) -> None:
        self.started = time.monotonic()
        sink = self.sink
        manifest, encoded = self.fetcher.manifest(bytes.fromhex(self.summary["digest"]))
        sink.describe(manifest, encoded, stripes, present=False)
        if sink.layout.bytes != self.summary["bytes"]:
            raise StageError("the manifest does not fit its summary")
        sink.prepare()
        if sink.survey(self._quick):
            try:
                sink.seed(self.fetcher.digests(source, sink.layout.blocks))
            except (OSError, Unreachable) as error:
                self._note(f"cannot compare with what is here already ({error}); fetching all of it")
        if self._merging:
            self.area.need(sink.layout.bytes - sink.kept_bytes())
        # where all was skipped nobody read anything, so there is no digest to compare
        root = b"" if sink.skipped and sink.skipped == sink.layout.bytes else self._fetch(source)
        self._check()
        sink.commit(manifest)
        self.emit(
            {
                "event": "done",
                "bytes": sink.layout.bytes,
                "fetched": sink.fetched,
                "reused": sink.reused,
                "skipped": sink.skipped,
                "seconds": time.monotonic() - self.started,
                "digest": root.hex(),
            }
        )

    def _fetch(self, source: Peer) -> bytes:
        """Bring every block here and compare the whole with the source's content digest, which is returned."""
        sink = self.sink
        self.fetcher.start()
        self._wait(lambda: sink.map.complete)
        self.fetcher.stop()
        self.emit({"event": "complete"})
        self._wait(lambda: self._root is not None)
        root = self._root or b""
        if sink.skipped:
            sink.complete_digests(self.fetcher.digests(source, sink.layout.blocks))
        if content_digest(sink.hash, sink.known_digests() or []) != root:
            self.fetcher.repair(source, root)
        return root

    def _wait(self, happened: Callable[[], bool]) -> None:
        with self.sink.changed:
            while not happened():
                self._check()
                self.sink.changed.wait(1)
        self._check()

    def _check(self) -> None:
        if self.sink.failed is not None:
            raise self.sink.failed
        if self.sink.closing:
            raise Interrupted("the transfer was stopped")

    def close(self, keep: bool) -> bool:
        """`keep` wins only where trying again can help; a full disk is given its space back."""
        failed = self.sink.failed
        worth = keep and (failed is None or isinstance(failed, TemporaryError)) and self.sink.encoded is not None
        self.sink.close()
        self.fetcher.stop()
        super().close(keep)
        self.fetcher.stop()  # streams that the worker was just starting
        return self.sink.release(worth and self.sink.bytes_here > 0)
