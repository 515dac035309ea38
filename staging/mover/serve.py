"""Publishing: any peer that proves the transfer key may ask for blocks; an answer waits until the block is there.

One listening thread, and for each peer a thread that reads requests and one that answers them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Sequence

from . import wire
from .digests import Bytes, Hash
from .errors import StageError
from .handshake import admit, receive, set_timeouts
from .pace import Pacer
from .replica import Replica

HANDSHAKE_SECONDS = 5
MAX_STRANGERS = 64  # peers that have not proved the key yet
WAIT_EVERY = 1.0
SEND_SECONDS = 30
CLOSE_SECONDS = 2  # for threads to end; one that hangs on a dead file server is left to the process's own end


class Publisher:
    def __init__(
        self, replica: Replica, key: bytes, transfer: bytes, host: str, chosen: Hash, pacer: Pacer | None = None
    ) -> None:
        self._pacer = pacer
        self._replica = replica
        self._key = key
        self._transfer = transfer
        self._hash = chosen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=128)
        self.endpoint = self._listener.getsockname()[:2]
        self._lock = threading.Lock()
        self._strangers: list[socket.socket] = []  # oldest first
        self._peers: dict[socket.socket, threading.Thread] = {}
        self._closed = False
        self.sent = 0
        self._thread = threading.Thread(target=self._accept, name="publish", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, end every peer's connection, and wait for the threads."""
        with self._lock:
            self._closed = True
            peers = dict(self._peers)
        for sock in [self._listener, *peers]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the peer was faster
        until = time.monotonic() + CLOSE_SECONDS
        for thread in [self._thread, *peers.values()]:
            thread.join(max(0.0, until - time.monotonic()))
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.1)  # out of descriptors, or the dialer was gone already
                continue
            with self._lock:
                if self._closed:
                    sock.close()
                    return
                if len(self._strangers) >= MAX_STRANGERS:  # an honest one takes milliseconds to prove itself
                    oldest = self._strangers.pop(0)
                    with contextlib.suppress(OSError):
                        oldest.shutdown(socket.SHUT_RDWR)
                self._strangers.append(sock)
                self._peers[sock] = threading.Thread(target=self._peer, args=(sock,), name="peer", daemon=True)
                self._peers[sock].start()

    def _peer(self, sock: socket.socket) -> None:
        try:
            try:
                self._admit(sock)
            finally:
                with self._lock, contextlib.suppress(ValueError):  # it was sent away
                    self._strangers.remove(sock)
            conversation = _Conversation(sock, self._replica, self._key, self._hash, self._pacer)
            conversation.run()
            with self._lock:
                self.sent += conversation.sent
        except (OSError, wire.ProtocolError):
            pass  # a peer that went away or talked rubbish is told nothing and costs nobody else anything
        finally:
            with self._lock:
                del self._peers[sock]
            sock.close()

    def _admit(self, sock: socket.socket) -> None:
        admit(sock, self._key, self._transfer, self._hash, HANDSHAKE_SECONDS)
        set_timeouts(sock, 0, SEND_SECONDS)
        if self._pacer is not None:
            self._pacer.smooth(sock)


class _Conversation:
    """Requests of one admitted peer, answered in the order in which they become possible."""

    def __init__(self, sock: socket.socket, replica: Replica, key: bytes, chosen: Hash, pacer: Pacer | None) -> None:
        self._pacer = pacer
        self._sock = sock
        self._replica = replica
        self._key = key
        self._hash = chosen
        self._pending: list[wire.Request] = []
        self._answering = False
        self._sending = threading.Lock()  # over one whole reply
        self._gone = False
        self.sent = 0

    def run(self) -> None:
        reader = threading.Thread(target=self._read, name="requests", daemon=True)
        reader.start()
        try:
            self._answer_all()
        finally:
            with contextlib.suppress(OSError):  # the peer may be gone already
                self._sock.shutdown(socket.SHUT_RDWR)
            reader.join()

    def _read(self) -> None:
        replica = self._replica
        try:
            poller = select.poll()
            poller.register(self._sock, select.POLLIN)
            while True:
                if not poller.poll(WAIT_EVERY * 1000):
                    self._keep_alive()
                    continue
                request = wire.read_request(receive(self._sock, wire.REQUEST.size))
                with replica.changed:
                    if len(self._pending) > 4096:
                        raise wire.ProtocolError("too many requests at once")
                    self._pending.append(request)
                    replica.changed.notify_all()
        except (OSError, wire.ProtocolError):
            with replica.changed:
                self._gone = True
                replica.changed.notify_all()

    def _keep_alive(self) -> None:
        """Say that the silence is not death: the block is not here yet, or the source is slow to read it."""
        if (self._pending or self._answering) and self._sending.acquire(blocking=False):
            try:
                self._push([self._header(wire.WAIT, b"")])
            finally:
                self._sending.release()

    def _answer_all(self) -> None:
        replica = self._replica
        while True:
            with replica.changed:
                request = self._ready()
                if request is None and not self._gone and not replica.over:
                    replica.changed.wait(WAIT_EVERY)
                    request = self._ready()
                if self._gone or replica.closing:
                    return
                self._answering = request is not None
            if replica.failed is not None:
                self._refuse(replica.failed)
                return
            if request is not None:
                try:
                    self._answer(request)
                except StageError as error:
                    replica.fail(error)

    def _ready(self) -> wire.Request | None:
        replica = self._replica
        if replica.encoded is None:
            return None
        for at, request in enumerate(self._pending):
            if request.op == wire.MANIFEST:
                return self._pending.pop(at)
            if not replica.described:
                continue
            wire.check_range(request, replica.layout.blocks)
            here = request.first in replica.map if request.op == wire.BLOCK else replica.map.complete
            if here:
                return self._pending.pop(at)
        return None

    def _answer(self, request: wire.Request) -> None:
        replica = self._replica
        if request.op == wire.MANIFEST:
            self._send(wire.MANIFEST, 0, replica.encoded or b"")
        elif request.op == wire.DIGESTS:
            self._send_digests(request)
        else:
            self._send_block(request.first)

    def _send_digests(self, request: wire.Request) -> None:
        found = []
        for block in range(request.first, request.first + request.many):
            if self._gone or self._replica.over:
                return
            found.append(self._replica.digest_of(block)[0])
        self._send(wire.DIGESTS, request.first, b"".join(found))

    def _send_block(self, block: int) -> None:
        replica = self._replica
        digest, data = replica.digest_of(block)
        segments = replica.layout.segments(block)
        if data is None and len(segments) > 1:
            data = replica.read(block)
        if data is not None:
            self._send(wire.BLOCK, block, data, digest)
            return
        (entry, offset, length) = segments[0]
        head = wire.reply(self._hash, self._key, wire.BLOCK, wire.OK, block, length, digest)
        with replica.open_entry(entry) as fd, self._sending:
            self._push([head], socket.MSG_MORE)
            end = offset + length
            while offset < end:
                count = os.sendfile(self._sock.fileno(), fd, offset, self._allowed(end - offset))
                if not count:
                    raise ConnectionError("the file is shorter than its manifest says")
                offset += count
        self.sent += length

    def _send(self, op: int, index: int, payload: Bytes, digest: bytes | None = None) -> None:
        digest = self._hash.digest(payload) if digest is None else digest
        head = wire.reply(self._hash, self._key, op, wire.OK, index, len(payload), digest)
        with self._sending:
            self._push([head, payload])
        if op == wire.BLOCK:
            self.sent += len(payload)

    def _push(self, parts: Sequence[Bytes], flags: int = 0) -> None:
        """sendmsg until all of it is gone."""
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            if self._pacer is not None:
                size = self._allowed(len(left[0]))
                count = self._sock.send(left[0][:size], flags)
            else:
                count = self._sock.sendmsg(left, (), flags)
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if left:
                left[0] = left[0][count:]

    def _allowed(self, size: int) -> int:
        """How many of `size` bytes may be sent now; waits until they may."""
        if self._pacer is None:
            return size
        size = min(size, self._pacer.at_once)
        self._pacer.wait(size)
        return size

    def _refuse(self, error: StageError) -> None:
        payload = json.dumps(error.to_wire()).encode()[: wire.MAX_REFUSAL]
        with self._sending:
            self._push([self._header(wire.REFUSED, payload), payload])

    def _header(self, status: int, payload: bytes) -> bytes:
        return wire.reply(self._hash, self._key, wire.BLOCK, status, 0, len(payload), self._hash.digest(payload))
