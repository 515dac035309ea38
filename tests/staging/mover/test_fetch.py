"""Fetching over real sockets: trees, peers that die, lie, forge or say nothing."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from staging.mover import connection, fetch, handshake, serve, wire
from staging.mover.connection import Peer
from staging.mover.errors import RefusedError, SourceChanged, SpaceError, StageError, Unreachable, VerifyError
from staging.mover.fetch import Feed, Fetcher
from staging.mover.manifest import Manifest
from support.movers import HASH, KEY, SECONDS, TRANSFER, Held, Member, Transfer, flat_manifest, transfer
from support.polling import until

BLOCK = 1024
DATA = os.urandom(200 * BLOCK + 17)
MANIFEST = flat_manifest(150 * BLOCK, 30, 50 * BLOCK - 13, block=BLOCK)
BLOCKS = 201
HANDSHAKE = wire.CHALLENGE_SIZE  # what a listener sends before its replies


@pytest.fixture
def made() -> Iterator[Transfer]:
    with transfer() as members:
        yield members


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "WAIT_EVERY", 0.05)
    monkeypatch.setattr(fetch, "IDLE_SECONDS", 0.05)


@pytest.fixture
def sensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENCE_SECONDS", 0.25)


def dead_peer(name: str = "dead") -> Peer:
    """A peer at whose port nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Peer(name, *listener.getsockname())


def ask(fetcher: Fetcher, peers: tuple[Peer, ...], digest: bytes) -> tuple[Manifest, bytes]:
    """The manifest from these peers."""
    fetcher.follow([Feed(0, peers)])
    return fetcher.manifest(digest)


@contextmanager
def listening(name: str, serve_one: Callable[[socket.socket], None]) -> Iterator[Peer]:
    """A peer that treats every connection with `serve_one`."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    conversations: list[socket.socket] = []

    def one(sock: socket.socket) -> None:
        with sock, suppress(OSError, wire.ProtocolError):
            serve_one(sock)

    def accept() -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                conversations.append(sock)
                threads.append(threading.Thread(target=one, args=(sock,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield Peer(name, *listener.getsockname())
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        listener.close()
        for sock in conversations:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def admitted(sock: socket.socket) -> None:
    handshake.admit(sock, KEY, TRANSFER, HASH, SECONDS)
    handshake.set_timeouts(sock, 0, 0)


def until_closed(sock: socket.socket) -> None:
    while sock.recv(1 << 16):
        pass


@contextmanager
def relaying(upstream: Peer, name: str, spoil: int) -> Iterator[Peer]:
    """A relay without the key: passes everything on, but changes byte number `spoil` of what the publisher says."""

    def pump(source: socket.socket, sink: socket.socket, at: int) -> None:
        with suppress(OSError):
            sent = 0
            while data := bytearray(source.recv(1 << 16)):
                if 0 <= at - sent < len(data):
                    data[at - sent] ^= 0x10
                sent += len(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def serve_one(sock: socket.socket) -> None:
        with socket.create_connection(upstream[1:]) as behind:
            down = threading.Thread(target=pump, args=(behind, sock, spoil))
            down.start()
            pump(sock, behind, -1)
            down.join()

    with listening(name, serve_one) as peer:
        yield peer


# whole transfers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "manifest",
    [MANIFEST, flat_manifest(block=BLOCK), flat_manifest(0, block=BLOCK), flat_manifest(1), flat_manifest(BLOCK)],
    ids=["many blocks", "no files", "an empty file", "one byte", "one full block"],
)
def test_whole(made: Transfer, manifest: Manifest) -> None:
    size = sum(entry.size for entry in manifest.entries)
    source, sink = made.source(manifest, DATA[:size]), made.sink()
    sink.fetch(manifest, [source.peer])
    assert sink.wait().content() == DATA[:size]
    assert sink.replica.fetched == sink.replica.bytes_here == size
    assert sink.replica.root() == source.replica.root()
    assert sink.notes == []


def test_striped_over_several_streams(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    sink.fetch(MANIFEST, *[[source.peer]] * 4)
    assert sink.wait().content() == DATA


def test_chain(made: Transfer) -> None:
    source = made.source(MANIFEST, DATA)
    chain = [made.sink(f"n{n}", host=f"127.0.0.{n}") for n in (1, 2, 3)]
    for sink, parent in zip(chain[::-1], [chain[1], chain[0], source], strict=True):
        sink.fetch(MANIFEST, [parent.peer])  # the last one first: its answers have to wait
    assert [sink.wait().content() == DATA for sink in chain] == [True] * 3
    assert all(sink.notes == [] for sink in chain)
    for member in (source, *chain[:2]):
        until("each uplink carried it once", lambda sent=member.publisher: sent.sent == len(DATA))  # type: ignore[misc]


def test_double_tree_of_two_that_feed_each_other(made: Transfer) -> None:
    source, one, two = made.source(MANIFEST, DATA), made.sink("one"), made.sink("two")
    one.fetch(MANIFEST, [source.peer], [two.peer, source.peer])
    two.fetch(MANIFEST, [one.peer, source.peer], [source.peer])
    assert one.wait().content() == two.wait().content() == DATA
    assert one.notes == two.notes == []


def test_a_parent_that_gets_its_manifest_later_keeps_its_children(made: Transfer) -> None:
    source, parent, child = made.source(MANIFEST, DATA), made.sink("parent"), made.sink("child")
    child.fetch(MANIFEST, [parent.peer, source.peer])
    until("the child has asked", lambda: parent.publisher._peers)
    parent.fetch(MANIFEST, [source.peer])
    assert child.wait().content() == DATA
    assert set(child.fetcher.origin.values()) == {"parent"}
    assert child.notes == []


def test_manifest_over_the_wire(made: Transfer) -> None:
    source, relay, sink = made.source(MANIFEST, DATA), made.sink("relay"), made.sink()
    digest = HASH.digest(MANIFEST.encode())
    for member, parent in ((relay, source), (sink, relay)):
        manifest, encoded = ask(member.fetcher, (dead_peer(), parent.peer), digest)
        assert (manifest, encoded) == (MANIFEST, MANIFEST.encode())
        member.replica.describe(manifest, encoded, 1, present=False)
    assert sink.notes == []


def test_digests_over_the_wire(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_DIGESTS", 64)
    source, sink = made.source(MANIFEST, DATA), made.sink()
    expected = [HASH.digest(DATA[b * BLOCK : (b + 1) * BLOCK]) for b in range(BLOCKS)]
    assert sink.fetcher.digests(source.peer, BLOCKS) == expected


@pytest.mark.usefixtures("sensitive")
def test_hashing_that_takes_longer_than_silence(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    read = Held.read

    def slow(self: Held, block: int) -> object:
        time.sleep(0.01)
        return read(self, block)

    monkeypatch.setattr(Held, "read", slow)
    begun = time.monotonic()
    assert len(sink.fetcher.digests(source.peer, 40)) == 40
    assert time.monotonic() - begun > connection.SILENCE_SECONDS


# peers that die -----------------------------------------------------------------------------------------


def test_a_feed_that_is_not_there(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    sink.fetch(MANIFEST, [dead_peer(), source.peer])
    assert sink.wait().content() == DATA
    assert [note.split(" (")[0] for note in sink.notes] == ["feed dead was lost"]


def test_a_feed_that_dies_midway(made: Transfer) -> None:
    source, parent, child = made.source(MANIFEST, DATA), made.sink("parent"), made.sink("child")
    parent.replica.describe(MANIFEST, MANIFEST.encode(), 1, present=False)
    for block in range(60):
        parent.replica.put(block, source.replica.read(block), source.replica.digest_of(block)[0])
    child.fetch(MANIFEST, [parent.peer, source.peer])
    until("it has what its parent has", lambda: child.replica.map.missing == BLOCKS - 60)
    parent.publisher.close()
    assert child.wait().content() == DATA
    origins = [child.fetcher.origin[block] for block in range(BLOCKS)]
    assert origins == ["parent"] * 60 + ["source"] * (BLOCKS - 60)
    assert child.replica.fetched == len(DATA)  # nothing came twice
    assert [note.split(" (")[0] for note in child.notes] == ["feed parent was lost"]


def test_a_dead_feed_leaves_its_stripe_to_the_others(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    sink.fetch(MANIFEST, [source.peer], [dead_peer()])
    assert sink.wait().content() == DATA


def test_a_parent_that_fails_is_left(made: Transfer) -> None:
    source, parent, child = made.source(MANIFEST, DATA), made.sink("parent"), made.sink("child")
    parent.fetch(MANIFEST)
    child.fetch(MANIFEST, [parent.peer, source.peer])
    parent.replica.fail(SpaceError("full"))
    assert child.wait().content() == DATA


@pytest.mark.usefixtures("sensitive")
def test_silence_after_accepting(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    with listening("mute", until_closed) as mute:
        sink.fetch(MANIFEST, [mute, source.peer])
        assert sink.wait().content() == DATA
    assert "feed mute was lost" in sink.notes[0]


@pytest.mark.usefixtures("sensitive")
def test_silence_after_the_handshake(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()

    def serve_one(sock: socket.socket) -> None:
        admitted(sock)
        until_closed(sock)

    with listening("mute", serve_one) as mute:
        sink.fetch(MANIFEST, [mute, source.peer])
        assert sink.wait().content() == DATA
    assert sink.notes[0] == "feed mute was lost (no answer in time); going on with the next"


@pytest.mark.usefixtures("sensitive")
def test_a_handshake_that_takes_for_ever(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()

    def serve_one(sock: socket.socket) -> None:
        while True:
            sock.sendall(b"x")
            time.sleep(0.05)

    with listening("trickle", serve_one) as trickle:
        begun = time.monotonic()
        sink.fetch(MANIFEST, [trickle, source.peer])
        assert sink.wait().content() == DATA
        assert time.monotonic() - begun < 3  # 64 bytes at that pace take longer


def test_a_parent_that_lives_but_gets_nothing_is_left_after_some_patience(
    made: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.3)
    source, stuck, child = made.source(MANIFEST, DATA), made.sink("stuck"), made.sink("child")
    stuck.fetch(MANIFEST)
    child.fetch(MANIFEST, [stuck.peer, source.peer])
    assert child.wait().content() == DATA
    assert child.notes == ["feed stuck was lost (it lives but has nothing for us); going on with the next"]


def test_a_parent_without_a_manifest_is_left_after_some_patience(
    made: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.2)
    source, stuck, child = made.source(MANIFEST, DATA), made.sink("stuck"), made.sink("child")
    digest = HASH.digest(MANIFEST.encode())
    assert ask(child.fetcher, (stuck.peer, source.peer), digest)[0] == MANIFEST


def test_patience_ends(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.4)
    sink = made.sink()
    begun = time.monotonic()
    sink.fetch(MANIFEST, [dead_peer("one"), dead_peer("two")])
    with pytest.raises(Unreachable, match=r"(one|two) stopped serving: .*refused"):
        sink.wait()
    assert 0.4 < time.monotonic() - begun < 3
    assert len(sink.notes) == 2  # not one for every attempt


def test_nobody_has_the_manifest(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(Unreachable, match=r"no peer gave the manifest: .*refused"):
        ask(made.sink().fetcher, (dead_peer(),), bytes(32))


def test_the_reason_of_a_source_that_failed_comes_through(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.2)
    source, sink = made.source(MANIFEST, DATA), made.sink()
    source.replica.fail(SourceChanged("/data/f changed while it was read"))
    with pytest.raises(SourceChanged, match="/data/f changed"):
        ask(sink.fetcher, (source.peer,), bytes(32))
    with pytest.raises(SourceChanged, match="/data/f changed"):
        sink.fetcher.digests(source.peer, BLOCKS)
    sink.fetch(MANIFEST, [source.peer])
    with pytest.raises(SourceChanged, match="/data/f changed"):
        sink.wait()


def test_our_own_full_disk_is_not_the_peers_fault(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()

    def full(*_: object) -> None:
        raise SpaceError("cannot write /f: No space left on device")

    monkeypatch.setattr(sink.replica, "write", full)
    sink.fetch(MANIFEST, [source.peer])
    with pytest.raises(SpaceError):
        sink.wait()
    assert sink.notes == []


def test_an_unforeseen_error_in_a_stream_ends_the_transfer(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(sink.replica, "write", broken)
    sink.fetch(MANIFEST, [source.peer])
    with pytest.raises(StageError, match="internal error: ZeroDivisionError: of ours"):
        sink.wait()


# peers that lie -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [HANDSHAKE + wire.REPLY_SIZE + 5, HANDSHAKE + 20, HANDSHAKE + 3 * (wire.REPLY_SIZE + BLOCK) - 1],
    ids=["payload", "MAC", "third payload"],
)
def test_a_changed_byte_is_found_and_its_relay_left(made: Transfer, spoil: int) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    with relaying(source.peer, "relay", spoil) as relay:
        sink.fetch(MANIFEST, [relay, source.peer])
        assert sink.wait().content() == DATA
    assert sink.notes == ["relay sent a block that failed its MAC; it is not used any more"]


@pytest.mark.parametrize("spoil", [3, HANDSHAKE, HANDSHAKE + 5], ids=["proof", "op", "length"])
def test_a_changed_byte_elsewhere_loses_the_relay(made: Transfer, spoil: int) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    with relaying(source.peer, "relay", spoil) as relay:
        sink.fetch(MANIFEST, [relay, source.peer])
        assert sink.wait().content() == DATA
    assert "feed relay was lost" in sink.notes[0]


def test_no_peer_left_to_trust(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    with relaying(source.peer, "relay", HANDSHAKE + 50) as relay:
        sink.fetch(MANIFEST, [relay])
        with pytest.raises(VerifyError, match="no peer is left"):
            sink.wait()


def test_a_changed_manifest_is_taken_from_the_next(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    with relaying(source.peer, "relay", HANDSHAKE + 50) as relay:
        manifest, _ = ask(sink.fetcher, (relay, source.peer), HASH.digest(MANIFEST.encode()))
    assert manifest == MANIFEST


def test_changed_digests_are_an_error(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    with relaying(source.peer, "relay", HANDSHAKE + 50) as relay, pytest.raises(VerifyError, match="failed their MAC"):
        sink.fetcher.digests(relay, BLOCKS)
    with pytest.raises(Unreachable, match="dead did not send its digests"):
        sink.fetcher.digests(dead_peer(), BLOCKS)


def test_a_peer_without_the_key_is_left(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    stranger = made.source(MANIFEST, bytes(len(DATA)), "stranger", key=bytes(32))
    sink.fetch(MANIFEST, [stranger.peer, source.peer])
    assert sink.wait().content() == DATA
    assert sink.notes == ["feed stranger was lost (the listener does not hold the key); going on with the next"]


def forging(made: Transfer, manifest: Manifest, wrong: list[int]) -> Member:
    """A member that holds the key and gives other bytes for the blocks in `wrong`."""
    data = bytearray(DATA)
    for block in wrong:
        data[block * BLOCK] ^= 1
    return made.source(manifest, bytes(data), "forger")


@pytest.mark.parametrize("wrong", [[0], [7, 9, 200], list(range(BLOCKS))], ids=["first", "some", "all"])
def test_a_forger_who_holds_the_key_is_found_and_its_blocks_mended(made: Transfer, wrong: list[int]) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    forger = forging(made, MANIFEST, wrong)
    sink.fetch(MANIFEST, [forger.peer, source.peer])
    replica = sink.wait()
    assert replica.content() != DATA
    assert replica.root() != source.replica.root()
    sink.fetcher.repair(source.peer, source.replica.root())
    assert replica.content() == DATA
    assert replica.root() == source.replica.root()
    assert replica.bytes_here == len(DATA)
    assert replica.fetched == len(DATA) + sum(replica.layout.length(block) for block in wrong)
    assert sink.notes == ["forger sent blocks that are not the source's; fetched again from the source"]


def test_the_forger_is_named_also_where_others_served(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    forger = forging(made, MANIFEST, [1, 3, 5])
    sink.fetch(MANIFEST, [source.peer], [forger.peer])
    replica = sink.wait()
    if replica.root() != source.replica.root():  # the source may have been faster with these blocks
        sink.fetcher.repair(source.peer, source.replica.root())
        assert sink.notes == ["forger sent blocks that are not the source's; fetched again from the source"]
    assert replica.content() == DATA


def test_the_children_of_a_deceived_relay_mend_themselves(made: Transfer) -> None:
    source, relay, child = made.source(MANIFEST, DATA), made.sink("relay"), made.sink("child")
    relay.fetch(MANIFEST, [forging(made, MANIFEST, [5]).peer])
    child.fetch(MANIFEST, [relay.peer, source.peer])
    for member in (relay, child):
        member.wait()
        member.fetcher.repair(source.peer, source.replica.root())
        assert member.replica.content() == DATA


def test_repair_with_a_source_that_contradicts_its_digest(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    sink.fetch(MANIFEST, [source.peer])
    sink.wait()
    with pytest.raises(VerifyError, match="do not fit its content digest"):
        sink.fetcher.repair(source.peer, bytes(32))


def replies(*made_of: tuple[int, int, int, bytes]) -> Callable[[socket.socket], None]:
    """A member that says these (op, status, block, payload) after the first request, whatever it was asked."""

    def serve_one(sock: socket.socket) -> None:
        admitted(sock)
        handshake.receive(sock, wire.REQUEST.size)
        for op, status, block, payload in made_of:
            digest = HASH.digest(payload)
            sock.sendall(wire.reply(HASH, KEY, op, status, block, len(payload), digest) + payload)
        until_closed(sock)

    return serve_one


@pytest.mark.parametrize(
    "reply",
    [
        (wire.BLOCK, wire.OK, BLOCKS, bytes(BLOCK)),
        (wire.BLOCK, wire.OK, 0, bytes(BLOCK - 1)),
        (wire.BLOCK, wire.OK, BLOCKS - 1, bytes(BLOCK)),
        (wire.BLOCK, wire.OK, 0, bytes(BLOCK + 1)),
        (wire.MANIFEST, wire.OK, 0, bytes(BLOCK)),
        (wire.DIGESTS, wire.OK, 0, bytes(BLOCK)),
        (wire.BLOCK, 3, 0, b""),
        (wire.BLOCK, wire.REFUSED, 0, b"not JSON"),
        (wire.BLOCK, wire.REFUSED, 0, b"[1]"),
        (wire.BLOCK, wire.REFUSED, 0, b"[" * 60_000),
    ],
)
def test_a_member_that_replies_rubbish_is_left(made: Transfer, reply: tuple[int, int, int, bytes]) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    with listening("member", replies(reply)) as member:
        sink.fetch(MANIFEST, [member, source.peer])
        assert sink.wait().content() == DATA
    assert "feed member was lost" in sink.notes[0]


@pytest.mark.parametrize(
    "reply",
    [
        (wire.MANIFEST, wire.OK, 0, b"{}"),
        (wire.DIGESTS, wire.OK, 5, bytes(64)),
        (wire.BLOCK, wire.OK, 0, b""),
    ],
)
def test_an_answer_to_another_request_is_none(made: Transfer, reply: tuple[int, int, int, bytes]) -> None:
    sink = made.sink()
    with listening("member", replies(reply)) as member, pytest.raises(Unreachable, match="another request"):
        sink.fetcher.digests(member, 2)


def test_digests_of_the_wrong_number(made: Transfer) -> None:
    sink = made.sink()
    reply = (wire.DIGESTS, wire.OK, 0, bytes(33))
    with listening("member", replies(reply)) as member, pytest.raises(VerifyError, match="33 bytes of digests"):
        sink.fetcher.digests(member, 2)


def test_a_wrong_manifest_is_told_once(made: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.3)
    source, sink = made.source(MANIFEST, DATA), made.sink()
    with pytest.raises(Unreachable, match="all of them gave a wrong one"):
        ask(sink.fetcher, (source.peer,), bytes(32))
    assert sink.notes == ["source sent a manifest that is not the source's"]


# resuming and stopping ----------------------------------------------------------------------------------


def test_only_what_is_missing_is_fetched(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    sink.replica.describe(MANIFEST, MANIFEST.encode(), 1, present=False)
    for block in range(0, BLOCKS, 2):
        sink.replica.put(block, source.replica.read(block), source.replica.digest_of(block)[0])
    sink.fetcher.follow([Feed(0, (source.peer,))])
    sink.fetcher.start()
    assert sink.wait().content() == DATA
    assert sink.replica.fetched == 100 * BLOCK


def test_stop_ends_streams_that_wait(made: Transfer) -> None:
    relay, child = made.sink("relay"), made.sink("child")
    relay.fetch(MANIFEST)
    before = set(threading.enumerate())
    child.fetch(MANIFEST, [relay.peer], [relay.peer])
    until("both are connected", lambda: len(relay.publisher._peers) == 2)
    child.replica.close()
    begun = time.monotonic()
    child.fetcher.stop()
    assert time.monotonic() - begun < 1
    until("the relay has noticed", lambda: set(threading.enumerate()) == before)


@pytest.mark.parametrize("what", ["manifest", "digests"])
def test_stop_ends_a_wait_for_what_does_not_come(made: Transfer, what: str) -> None:
    relay, child = made.sink("relay"), made.sink("child")
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            if what == "manifest":
                ask(child.fetcher, (relay.peer,), bytes(32))
            else:
                child.fetcher.digests(relay.peer, BLOCKS)
        except StageError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until("it has asked", lambda: child.fetcher._connections)
    child.replica.close()
    child.fetcher.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(ended[0], Unreachable)


def test_nothing_is_asked_of_anybody_once_it_is_over(made: Transfer) -> None:
    source, sink = made.source(MANIFEST, DATA), made.sink()
    sink.replica.fail(RefusedError("no"))
    sink.fetch(MANIFEST, [source.peer])
    sink.fetcher.stop()
    assert sink.replica.fetched == 0
    with pytest.raises(Unreachable, match="was stopped"):
        sink.fetcher.digests(source.peer, BLOCKS)


def test_a_stream_turns_to_another_feed_at_once_when_told(made: Transfer) -> None:
    source, idle, child = made.source(MANIFEST, DATA), made.sink("idle"), made.sink("child")
    idle.replica.describe(MANIFEST, MANIFEST.encode(), 1, present=False)  # it has nothing, but it lives
    child.fetch(MANIFEST, [idle.peer, source.peer])
    until("it has asked the idle one", lambda: child.fetcher._live)
    child.fetcher.follow([Feed(0, (source.peer,))])
    assert child.wait().content() == DATA
    assert child.notes == []  # nothing was lost


def test_a_second_stream_keeps_its_feed_while_the_first_is_turned(made: Transfer) -> None:
    source, idle, child = made.source(MANIFEST, DATA), made.sink("idle"), made.sink("child")
    relay = made.sink("relay")
    idle.replica.describe(MANIFEST, MANIFEST.encode(), 1, present=False)
    relay.replica.describe(MANIFEST, MANIFEST.encode(), 1, present=False)
    child.fetch(MANIFEST, [idle.peer, source.peer], [relay.peer, source.peer])
    until("both have asked", lambda: len(child.fetcher._live) == 2)
    before = child.fetcher._live[1]
    child.fetcher.follow([Feed(0, (source.peer,)), Feed(1, (relay.peer, idle.peer))])
    relay.fetch(MANIFEST, [source.peer])
    assert child.wait().content() == DATA
    assert child.fetcher._live[1] is before
    assert child.notes == []
