"""The publisher, asked by a raw client over real sockets."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from staging.mover import serve, wire
from staging.mover.digests import HASHES, Bytes
from staging.mover.errors import SourceChanged
from staging.mover.handshake import dial, receive
from staging.mover.serve import Publisher
from support.movers import HASH, KEY, SECONDS, TRANSFER, Held, Member, Transfer, flat_manifest, transfer
from support.polling import until

BLOCK = 1024
MANIFEST = flat_manifest(3000, 700, 900, block=BLOCK)  # blocks 0 and 1 are of one file, the others of several
DATA = os.urandom(4600)
BLOCKS = 5


@pytest.fixture
def made() -> Iterator[Transfer]:
    with transfer() as members:
        yield members


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "WAIT_EVERY", 0.1)


@contextmanager
def connected(member: Member, key: bytes = KEY, seconds: float = 5) -> Iterator[socket.socket]:
    _, host, port = member.peer
    sock = dial(host, port, key, TRANSFER, HASH, 3, seconds)
    try:
        yield sock
    finally:
        sock.close()


def get(sock: socket.socket) -> tuple[wire.Reply, bytes]:
    """The next reply, its MAC checked, and its payload."""
    reply = wire.read_reply(receive(sock, wire.REPLY_SIZE), wire.MAX_BLOCK)
    payload = receive(sock, reply.length)
    assert wire.authentic(HASH, KEY, reply, HASH.digest(payload))
    return reply, payload


def closed(sock: socket.socket) -> bool:
    """Whether the other side has ended the connection and said nothing more."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def block_of(number: int) -> bytes:
    return DATA[number * BLOCK : (number + 1) * BLOCK]


# answers ------------------------------------------------------------------------------------------------


def test_the_manifest_goes_on_before_it_was_read_here(made: Transfer) -> None:
    sink = made.sink()
    with connected(sink) as sock:
        sock.sendall(wire.request(wire.BLOCK, 0) + wire.request(wire.MANIFEST))
        sink.replica.offer(MANIFEST.encode())
        reply, payload = get(sock)
        while reply.status == wire.WAIT:
            reply, payload = get(sock)
        assert (reply.op, payload) == (wire.MANIFEST, MANIFEST.encode())
        sink.replica.describe(MANIFEST, MANIFEST.encode(), 1, present=False)
        sink.replica.put(0, block_of(0), HASH.digest(block_of(0)))
        while (found := get(sock))[0].status == wire.WAIT:
            continue
        assert (found[0].op, found[0].block, found[1]) == (wire.BLOCK, 0, block_of(0))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.77", "::1"])
def test_every_block_the_manifest_and_the_digests(made: Transfer, host: str) -> None:
    try:
        source = made.source(MANIFEST, DATA, host=host)
    except OSError as error:
        pytest.skip(f"no {host} here: {error}")
    with connected(source) as sock:
        for block in (4, 0, 2, 1, 3):
            sock.sendall(wire.request(wire.BLOCK, block))
            reply, payload = get(sock)
            assert (reply.op, reply.status, reply.block, payload) == (wire.BLOCK, wire.OK, block, block_of(block))
        sock.sendall(wire.request(wire.MANIFEST))
        assert get(sock)[1] == MANIFEST.encode()
        sock.sendall(wire.request(wire.DIGESTS, 1, 3))
        assert get(sock)[1] == b"".join(HASH.digest(block_of(block)) for block in (1, 2, 3))


def test_many_requests_at_once(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    with connected(source) as sock:
        sock.sendall(b"".join(wire.request(wire.BLOCK, block % BLOCKS) for block in range(400)))
        got = [get(sock) for _ in range(400)]
    assert sorted(reply.block for reply, _ in got) == sorted(block % BLOCKS for block in range(400))
    assert all(payload == block_of(reply.block) for reply, payload in got)


def test_an_answer_waits_for_its_block_and_says_so_meanwhile(made: Transfer) -> None:
    relay = made.sink()
    relay.fetch(MANIFEST)
    with connected(relay) as sock:
        sock.sendall(wire.request(wire.BLOCK, 3) + wire.request(wire.BLOCK, 1))
        reply, payload = get(sock)
        assert (reply.status, payload) == (wire.WAIT, b"")
        relay.replica.put(1, block_of(1), HASH.digest(block_of(1)))
        answers = (get(sock) for _ in range(10))
        reply, payload = next(answer for answer in answers if answer[0].status != wire.WAIT)
        assert (reply.block, payload) == (1, block_of(1))


def test_a_request_that_comes_before_the_manifest_waits(made: Transfer) -> None:
    relay = made.sink()
    with connected(relay) as sock:
        sock.sendall(wire.request(wire.BLOCK, 0) + wire.request(wire.MANIFEST))
        assert get(sock)[0].status == wire.WAIT
        relay.fetch(MANIFEST)
        relay.replica.put(0, block_of(0), HASH.digest(block_of(0)))
        answers = [answer for answer in (get(sock) for _ in range(2)) if answer[0].status != wire.WAIT]
        while len(answers) < 2:
            answers += [answer for answer in [get(sock)] if answer[0].status != wire.WAIT]
    assert {(reply.op, payload) for reply, payload in answers} == {
        (wire.MANIFEST, MANIFEST.encode()),
        (wire.BLOCK, block_of(0)),
    }


def test_a_request_before_the_manifest_for_a_block_that_will_not_be(made: Transfer) -> None:
    relay = made.sink()
    with connected(relay) as sock:
        sock.sendall(wire.request(wire.BLOCK, BLOCKS))
        assert get(sock)[0].status == wire.WAIT
        relay.fetch(MANIFEST)
        assert closed(sock)


def test_no_digests_of_blocks_that_are_not_there(made: Transfer) -> None:
    relay = made.sink()
    relay.fetch(MANIFEST)
    with connected(relay) as sock:
        sock.sendall(wire.request(wire.DIGESTS, 0, BLOCKS))
        assert get(sock)[0].status == wire.WAIT
        assert relay.replica.digests == [None] * BLOCKS


@pytest.mark.parametrize("request_bytes", [wire.request(wire.DIGESTS, 0, BLOCKS), wire.request(wire.BLOCK, 0)])
def test_slow_reading_shows_signs_of_life(
    made: Transfer, monkeypatch: pytest.MonkeyPatch, request_bytes: bytes
) -> None:
    source = made.source(MANIFEST, DATA)
    read, go_on = source.replica.read, threading.Event()

    def slow(block: int) -> Bytes:
        assert go_on.wait(SECONDS)
        return read(block)

    monkeypatch.setattr(source.replica, "read", slow)
    with connected(source) as sock:
        sock.sendall(request_bytes)
        assert [get(sock)[0].status for _ in range(3)] == [wire.WAIT] * 3
        go_on.set()
        reply, payload = get(sock)
        while reply.status == wire.WAIT:
            reply, payload = get(sock)
        assert (reply.status, len(payload)) == (wire.OK, reply.length)
        assert payload


def test_a_failed_replica_says_why(made: Transfer) -> None:
    relay = made.sink()
    relay.fetch(MANIFEST)
    with connected(relay) as sock:
        sock.sendall(wire.request(wire.BLOCK, 0))
        relay.replica.fail(SourceChanged("it moved"))
        reply, payload = get(sock)
        while reply.status == wire.WAIT:
            reply, payload = get(sock)
        assert reply.status == wire.REFUSED
        assert json.loads(payload)["class"] == "SourceChanged"
        assert closed(sock)


def test_who_comes_after_the_failure_is_told_too(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    source.replica.fail(SourceChanged("it moved"))
    with connected(source) as sock:
        assert json.loads(get(sock)[1])["message"] == "it moved"


def test_an_error_while_reading_is_the_replicas(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = made.source(MANIFEST, DATA)

    def changed(self: Held, block: int) -> bytes:
        raise SourceChanged("it moved")

    monkeypatch.setattr(Held, "read", changed)
    with connected(source) as sock:
        sock.sendall(wire.request(wire.BLOCK, 2))
        assert get(sock)[0].status == wire.REFUSED
    assert isinstance(source.replica.failed, SourceChanged)


# strangers ----------------------------------------------------------------------------------------------


def test_neither_side_accepts_another_key(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    with pytest.raises(wire.ProtocolError, match="does not hold the key"), connected(source, key=bytes(32)):
        pass
    hello = wire.hello(TRANSFER, bytes(32))
    with socket.create_connection(source.peer[1:]) as sock:
        sock.sendall(hello)
        nonce = receive(sock, wire.CHALLENGE_SIZE)[: wire.NONCE_SIZE]
        sock.sendall(wire.proof(HASH, bytes(32), b"dialer", hello, nonce))
        assert closed(sock)


def test_a_reflected_proof_opens_nothing(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    with socket.create_connection(source.peer[1:]) as sock:
        sock.sendall(wire.hello(TRANSFER, bytes(32)))
        sock.sendall(receive(sock, wire.CHALLENGE_SIZE)[wire.NONCE_SIZE :])
        assert closed(sock)


def test_another_transfer_is_told_nothing(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    with socket.create_connection(source.peer[1:]) as sock:
        sock.sendall(wire.hello(b"another transfer", bytes(32)))
        assert closed(sock)


def test_another_hash_is_another_proof(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    _, host, port = source.peer
    with pytest.raises(wire.ProtocolError):
        dial(host, port, KEY, TRANSFER, HASHES["blake3"], 3, 5)


def test_random_bytes_are_told_nothing_and_harm_nobody(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    with connected(source) as good:
        for size in (1, 56, 57, 100_000):
            with socket.create_connection(source.peer[1:]) as sock:
                with suppress(OSError):  # it may be thrown out in the middle of a word
                    sock.sendall(os.urandom(size))
                    sock.shutdown(socket.SHUT_WR)
                assert closed(sock)
        good.sendall(wire.request(wire.BLOCK, 4))
        assert get(good)[1] == block_of(4)


@pytest.mark.parametrize(
    "rubbish",
    [
        bytes(16),
        wire.request(wire.BLOCK, BLOCKS),
        wire.request(wire.DIGESTS, 0, BLOCKS + 1),
        wire.request(wire.DIGESTS, 0, 0),
        b"\xff" * 16,
    ],
)
def test_a_member_that_talks_rubbish_is_cut_off(made: Transfer, rubbish: bytes) -> None:
    source = made.source(MANIFEST, DATA)
    with connected(source) as sock:
        sock.sendall(rubbish)
        assert closed(sock)


def test_too_many_requests_at_once(made: Transfer) -> None:
    relay = made.sink()
    relay.fetch(MANIFEST)
    with connected(relay) as sock:
        sock.sendall(wire.request(wire.BLOCK, 0) * 4200)
        with suppress(ConnectionResetError):
            while sock.recv(1 << 16):  # a WAIT or two may come first
                pass


@pytest.mark.parametrize("pace", [None, 0.02], ids=["silent", "a byte now and then"])
def test_a_slow_stranger_is_dropped_in_time(
    made: Transfer, monkeypatch: pytest.MonkeyPatch, pace: float | None
) -> None:
    monkeypatch.setattr(serve, "HANDSHAKE_SECONDS", 0.3)
    source = made.source(MANIFEST, DATA)
    hello = wire.hello(TRANSFER, bytes(32))
    begun = time.monotonic()
    with socket.create_connection(source.peer[1:]) as sock:
        sock.settimeout(5)
        with suppress(ConnectionError):
            for at in range(len(hello) - 1 if pace else 0):
                sock.sendall(hello[at : at + 1])
                time.sleep(pace or 0)
        assert closed(sock)
    assert 0.25 < time.monotonic() - begun < 2.5


def test_number_of_strangers_is_bounded_and_members_still_get_in(
    made: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "MAX_STRANGERS", 3)
    source = made.source(MANIFEST, DATA)
    with ExitStack() as stack:
        member = stack.enter_context(connected(source))
        until("its proof has been looked at", lambda: not source.publisher._strangers)
        strangers = [stack.enter_context(socket.create_connection(source.peer[1:])) for _ in range(3)]
        until("all three are there", lambda: len(source.publisher._strangers) == 3)
        fourth = stack.enter_context(connected(source))
        assert closed(strangers[0])  # the oldest made room
        fourth.sendall(wire.request(wire.BLOCK, 1))
        assert get(fourth)[1] == block_of(1)
        member.sendall(wire.request(wire.BLOCK, 0))
        assert get(member)[1] == block_of(0)
        late = stack.enter_context(connected(source))
        late.sendall(wire.request(wire.BLOCK, 1))
        assert get(late)[1] == block_of(1)


# the end ------------------------------------------------------------------------------------------------


def test_close_ends_every_thread_and_connection(made: Transfer) -> None:
    before = set(threading.enumerate())
    source = made.source(MANIFEST, DATA)
    with ExitStack() as stack:
        socks = [stack.enter_context(connected(source)) for _ in range(3)]
        socks.append(stack.enter_context(socket.create_connection(source.peer[1:])))
        until("all are there", lambda: len(source.publisher._peers) == 4)
        source.publisher.close()
        assert set(threading.enumerate()) == before
        assert source.publisher._peers == {}
        assert all(closed(sock) for sock in socks)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(source.peer[1:])


def test_close_while_a_slow_peer_takes_nothing(made: Transfer) -> None:
    manifest = flat_manifest(32 << 20, block=8 << 20)
    source = made.add("source", Held())
    source.replica.describe(manifest, manifest.encode(), 1, present=True)
    source.replica.write(3, bytes(8 << 20))  # a hole before it
    before = set(threading.enumerate())
    with connected(source) as sock:
        sock.sendall(b"".join(wire.request(wire.BLOCK, block) for block in range(4)))
        receive(sock, 100_000)
        source.publisher.close()
    assert set(threading.enumerate()) <= before


def test_close_races_with_those_who_come(made: Transfer) -> None:
    before = set(threading.enumerate())
    replica = Held.full(MANIFEST, DATA)
    for _ in range(10):
        publisher = Publisher(replica, KEY, TRANSFER, "127.0.0.1", HASH)
        stop = threading.Event()

        def knock(endpoint: tuple[str, int] = publisher.endpoint, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                try:
                    dial(*endpoint, KEY, TRANSFER, HASH, 1, 1).close()
                except OSError:
                    continue

        threads = [threading.Thread(target=knock) for _ in range(3)]
        for thread in threads:
            thread.start()
        until("somebody is served", lambda publisher=publisher: publisher._peers)  # type: ignore[misc]
        publisher.close()
        stop.set()
        for thread in threads:
            thread.join()
        assert publisher._peers == {}
        until("the threads have ended", lambda: set(threading.enumerate()) == before)
    replica.release()


def test_accepting_goes_on_after_an_error(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = made.source(MANIFEST, DATA)
    accept = socket.socket.accept
    failures = [OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError(errno.ECONNABORTED, "aborted")]

    def failing(sock: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", failing)
    for _ in range(4):  # the first call of accept was under way before the errors
        with connected(source) as sock:
            sock.sendall(wire.request(wire.BLOCK, 0))
            assert get(sock)[1] == block_of(0)
    assert failures == []


def test_sent_counts_bytes_of_blocks(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    with connected(source) as sock:
        sock.sendall(wire.request(wire.BLOCK, 0) + wire.request(wire.MANIFEST) + wire.request(wire.BLOCK, 4))
        for _ in range(3):
            get(sock)
    until("it is counted", lambda: source.publisher.sent == BLOCK + 4600 - 4 * BLOCK)
