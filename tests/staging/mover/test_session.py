"""One mover's part in a transfer: in this process for what is quick, and as the real program for what needs one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from staging.mover.connection import Peer
from staging.mover.digests import HASHES
from staging.mover.errors import SpaceError, StageError, UsageError, VerifyError
from staging.mover.manifest import Manifest, file_entries
from staging.mover.order import order_digest
from staging.mover.scan import scan
from staging.mover.session import SinkSession, SourceSession
from staging.mover.source import Source
from staging.mover.target import AREA_PREFIX
from support.movers import (
    HASH,
    KEY,
    ROOT,
    SECONDS,
    TRANSFER,
    Member,
    Transfer,
    listing,
    make_odd_tree,
    open_count,
    transfer,
)
from support.polling import until

BLOCK = 4096
Event = dict[str, Any]


def areas(top: Path) -> list[str]:
    return [str(path) for path in top.rglob(AREA_PREFIX + "*")]


# orders -------------------------------------------------------------------------------------------------


def member_fields(host: str = "127.0.0.1") -> dict[str, Any]:
    return {"transfer": TRANSFER.hex(), "key": KEY.hex(), "host": host, "root": ""}


def source_order(*paths: Path, contents: bool = False) -> Event:
    sources = [str(path) for path in paths]
    order = {"op": "open", "role": "source", "sources": sources, "contents": contents, "block": BLOCK, "nodes": 2}
    return {**order, **member_fields()}


def sink_order(dest: Path, manifest: Event, **changes: Any) -> Event:
    order = {"op": "open", "role": "sink", "dest": str(dest), "into": "auto", "parents": False, "preserve": True}
    return {**order, "manifest": manifest, **member_fields(), **changes}


def run_order(source: Peer, *feeds: list[Peer]) -> Event:
    dealt = [{"stripe": stripe, "peers": [list(p) for p in peers]} for stripe, peers in enumerate(feeds or [[source]])]
    return {"op": "run", "stripes": len(dealt), "feeds": dealt, "source": list(source)}


def root_order(digest: str) -> Event:
    return {"op": "root", "digest": digest}


# a mover in this process --------------------------------------------------------------------------------


class Local:
    """A session in this process and the events that it told."""

    def __init__(self, kind: type[SinkSession] | type[SourceSession], order: Event, name: str = "local") -> None:
        self.events: list[Event] = []
        self._told = threading.Condition()
        self.session = kind(order, self._emit)
        self.opened = self.expect("opened")
        self.peer = Peer(name, *self.opened["endpoint"])

    def _emit(self, event: Event) -> None:
        with self._told:
            self.events.append(event)
            self._told.notify_all()

    def expect(self, name: str) -> Event:
        """The event of this name; raises what the session failed with."""
        deadline = time.monotonic() + SECONDS
        with self._told:
            while not (found := [event for event in self.events if event["event"] == name]):
                if getattr(self, "session", None) and self.session.replica.failed is not None:
                    raise self.session.replica.failed
                assert time.monotonic() < deadline, f"no {name}: {self.events}"
                self._told.wait(0.02)
        return found[0]

    def notes(self) -> list[str]:
        return [event["message"] for event in self.events if event["event"] == "note"]

    def seal(self) -> str:
        self.session.handle({"op": "seal"})
        return str(self.expect("root")["digest"])


@contextmanager
def local(kind: type[SinkSession] | type[SourceSession], order: Event, name: str = "local") -> Iterator[Local]:
    mover = Local(kind, order, name)
    try:
        yield mover
    finally:
        mover.session.close(keep=False)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    threads, descriptors = set(threading.enumerate()), open_count()
    yield
    until("the threads have ended", lambda: set(threading.enumerate()) <= threads)
    until("the descriptors are closed", lambda: open_count() == descriptors)


@pytest.fixture
def made() -> Iterator[Transfer]:
    with transfer() as members:
        yield members


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "source" / "top"
    make_odd_tree(top)
    (top / "big").write_bytes(os.urandom(40 * BLOCK + 5))
    return top


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    path = tmp_path / "dest"
    path.mkdir()
    return path


class Offer:
    """What a source would announce for `path`, held in memory so that tests can serve it as they like."""

    def __init__(self, path: Path) -> None:
        found = scan([str(path)], contents=False)
        self.manifest = Manifest(tuple(found.entries), BLOCK, HASH.name)
        source = Source(found, self.manifest)
        self.data = b"".join(source.read(block) for block in range(source.layout.blocks))
        self.root = source.seal().hex()
        source.release()
        self.blocks = source.layout.blocks
        self.summary = {
            "identity": self.manifest.identity().hex(),
            "digest": HASH.digest(self.manifest.encode()).hex(),
            "hash": HASH.name,
            "block": BLOCK,
            "blocks": self.blocks,
            "bytes": len(self.data),
            "files": file_entries(self.manifest.entries),
            "tops": self.manifest.tops(),
            "contents": False,
            "directory": path.is_dir(),
        }

    def whole(self, made: Transfer, name: str = "source") -> Member:
        return made.source(self.manifest, self.data, name)

    def part(self, made: Transfer, blocks: int) -> Member:
        """A member that has the first blocks only, and keeps whoever asks for more waiting."""
        member = made.sink("part")
        member.fetch(self.manifest)
        self.give(member, range(blocks))
        return member

    def give(self, member: Member, blocks: Iterable[int]) -> None:
        for block in blocks:
            data = self.data[block * BLOCK : (block + 1) * BLOCK]
            member.replica.put(block, data, HASH.digest(data))

    def forged(self, made: Transfer, block: int) -> Member:
        data = bytearray(self.data)
        data[block * BLOCK] ^= 1
        return made.source(self.manifest, bytes(data), "forger")


@pytest.fixture
def offer(tree: Path) -> Offer:
    return Offer(tree)


def test_source_announces_what_it_has(tree: Path) -> None:
    with local(SourceSession, source_order(tree)) as source:
        summary = source.opened["manifest"]
        assert (summary["tops"], summary["contents"], summary["directory"]) == (["top"], False, True)
        assert summary["blocks"] == -(-summary["bytes"] // BLOCK)
        assert summary["hash"] in HASHES
        assert source.opened["skipped"] == []


def test_whole_transfer_through_a_relay(tree: Path, dest: Path) -> None:
    with local(SourceSession, source_order(tree), "source") as source:
        summary = source.opened["manifest"]
        (dest / "n1").mkdir()
        (dest / "n2").mkdir()
        with (
            local(SinkSession, sink_order(dest / "n1", summary, host="127.0.0.2"), "n1") as one,
            local(SinkSession, sink_order(dest / "n2", summary, host="127.0.0.3"), "n2") as two,
        ):
            two.session.handle(run_order(source.peer, [one.peer, source.peer]))
            one.session.handle(run_order(source.peer))
            one.expect("complete")
            two.expect("complete")
            assert os.listdir(dest / "n1" / "..") == os.listdir(dest)
            assert not (dest / "n1" / "top").exists()
            root = source.seal()
            for sink in (one, two):
                sink.session.handle(root_order(root))
            done = [sink.expect("done") for sink in (one, two)]
            assert [d["fetched"] for d in done] == [summary["bytes"]] * 2
            assert [(d["bytes"], d["reused"], d["digest"]) for d in done] == [(summary["bytes"], 0, root)] * 2
            assert [listing(dest / n / "top") for n in ("n1", "n2")] == [listing(tree)] * 2
            assert areas(dest) == []  # also before `finish`
            assert one.notes() == two.notes() == []


def test_two_that_feed_each_other(made: Transfer, offer: Offer, tree: Path, dest: Path) -> None:
    source = offer.whole(made)
    for name in ("n1", "n2"):
        (dest / name).mkdir()
    with (
        local(SinkSession, sink_order(dest / "n1", offer.summary), "n1") as one,
        local(SinkSession, sink_order(dest / "n2", offer.summary), "n2") as two,
    ):
        one.session.handle(run_order(source.peer, [source.peer], [two.peer, source.peer]))
        two.session.handle(run_order(source.peer, [one.peer, source.peer], [source.peer]))
        for sink in (one, two):
            sink.session.handle(root_order(offer.root))
        for sink, name in ((one, "n1"), (two, "n2")):
            sink.expect("done")
            assert listing(dest / name / "top") == listing(tree)
            assert sink.notes() == []


def test_an_identical_destination_fetches_nothing(made: Transfer, tree: Path, dest: Path) -> None:
    for name in ("sparse", "hole"):
        (tree / "sub" / name).unlink()
    offer = Offer(tree)
    source = offer.whole(made)
    for fetched in (len(offer.data), 0):
        with local(SinkSession, sink_order(dest, offer.summary)) as sink:
            sink.session.handle(run_order(source.peer))
            sink.session.handle(root_order(offer.root))
            done = sink.expect("done")
            assert (done["fetched"], done["reused"]) == (fetched, len(offer.data) - fetched)
        assert listing(dest / "top")["big"] == listing(tree)["big"]


def test_what_has_the_sources_size_and_time_is_read_nowhere(tree: Path, dest: Path) -> None:
    with local(SourceSession, source_order(tree)) as source:
        summary = source.opened["manifest"]
        with local(SinkSession, sink_order(dest, summary)) as sink:
            sink.session.handle(run_order(source.peer))
            sink.expect("complete")
            sink.session.handle(root_order(source.seal()))
            sink.expect("done")
    before = listing(dest / "top")
    with local(SourceSession, source_order(tree)) as source:
        with local(SinkSession, sink_order(dest, summary, checksum=False)) as sink:
            sink.session.handle(run_order(source.peer))
            done = sink.expect("done")  # and nobody has told it the content digest
            assert (done["fetched"], done["skipped"], done["digest"]) == (0, summary["bytes"], "")
        assert source.session.replica.digests == [None] * summary["blocks"]
    assert listing(dest / "top") == before
    (tree / "big").write_bytes(b"shorter")
    with local(SourceSession, source_order(tree)) as source:
        summary = source.opened["manifest"]
        with local(SinkSession, sink_order(dest, summary, checksum=False)) as sink:
            sink.session.handle(run_order(source.peer))
            sink.expect("complete")
            root = source.seal()
            sink.session.handle(root_order(root))
            done = sink.expect("done")
            assert done["digest"] == root
            assert 0 < done["skipped"] == done["reused"] == summary["bytes"] - done["fetched"]
            assert sink.notes() == []
    assert listing(dest / "top") == listing(tree)


def test_a_relay_whose_skipped_file_is_rotten_is_found_out(tree: Path, dest: Path) -> None:
    for name in ("n1", "n2"):
        (dest / name).mkdir()
    with local(SourceSession, source_order(tree)) as source:
        summary = source.opened["manifest"]
        with local(SinkSession, sink_order(dest / "n1", summary)) as one:
            one.session.handle(run_order(source.peer))
            root = source.seal()
            one.session.handle(root_order(root))
            one.expect("done")
        rotten = dest / "n1" / "top" / "big"
        with rotten.open("r+b") as file:
            file.seek(20 * BLOCK)
            file.write(b"rot")
        os.utime(rotten, ns=(0, (tree / "big").stat().st_mtime_ns))
        with (
            local(SinkSession, sink_order(dest / "n1", summary, checksum=False), "n1") as one,
            local(SinkSession, sink_order(dest / "n2", summary), "n2") as two,
        ):
            one.session.handle(run_order(source.peer))
            one.expect("done")
            two.session.handle(run_order(source.peer, [one.peer, source.peer]))
            two.session.handle(root_order(root))
            two.expect("done")
            assert two.notes() == ["n1 sent blocks that are not the source's; fetched again from the source"]
    assert listing(dest / "n2" / "top") == listing(tree)


def test_a_forging_relay_is_found_named_and_mended(made: Transfer, offer: Offer, tree: Path, dest: Path) -> None:
    source, forger = offer.whole(made), offer.forged(made, 3)
    with local(SinkSession, sink_order(dest, offer.summary)) as sink:
        sink.session.handle(run_order(source.peer, [forger.peer, source.peer]))
        sink.session.handle(root_order(offer.root))
        done = sink.expect("done")
        assert done["fetched"] == len(offer.data) + BLOCK
        assert sink.notes() == ["forger sent blocks that are not the source's; fetched again from the source"]
    assert listing(dest / "top") == listing(tree)


@pytest.mark.parametrize("failed", ["root", "source gone"])
def test_a_digest_that_cannot_be_reached_puts_nothing_under_its_name(
    made: Transfer, offer: Offer, dest: Path, failed: str
) -> None:
    source, forger = offer.whole(made), offer.forged(made, 3)
    if failed == "source gone":
        source.publisher.close()
    with local(SinkSession, sink_order(dest, offer.summary)) as sink:
        sink.session.handle(run_order(source.peer, [forger.peer]))
        sink.session.handle(root_order(offer.root if failed == "source gone" else "00" * 32))
        with pytest.raises(StageError) as caught:
            sink.expect("done")
        assert isinstance(caught.value, VerifyError) == (failed == "root")
    assert os.listdir(dest) == []


def test_a_summary_that_is_not_the_manifests(made: Transfer, offer: Offer, dest: Path) -> None:
    source = offer.whole(made)
    with local(SinkSession, sink_order(dest, {**offer.summary, "bytes": 5})) as sink:
        sink.session.handle(run_order(source.peer))
        with pytest.raises(StageError, match="does not fit its summary"):
            sink.expect("complete")


def test_an_order_that_makes_no_sense_fails_instead_of_hanging(offer: Offer, dest: Path) -> None:
    with local(SinkSession, sink_order(dest, offer.summary)) as sink:
        sink.session.handle({**run_order(Peer("x", "127.0.0.1", 1)), "feeds": []})
        with pytest.raises(StageError, match="internal error: IndexError"):
            sink.expect("complete")


def test_a_sink_without_the_hash(offer: Offer, dest: Path) -> None:
    with pytest.raises(StageError, match="cannot check sha0 digests; install blake3 here"):
        SinkSession(sink_order(dest, {**offer.summary, "hash": "sha0"}), lambda event: None)
    assert os.listdir(dest) == []


def test_a_sink_that_cannot_listen_leaves_nothing(offer: Offer, dest: Path) -> None:
    with pytest.raises(OSError, match="assign"):
        SinkSession(sink_order(dest, offer.summary, host="192.0.2.1"), lambda event: None)
    assert os.listdir(dest) == []


@pytest.mark.parametrize(("kind", "op"), [(SourceSession, "run"), (SourceSession, "root"), (SinkSession, "seal")])
def test_orders_of_the_other_role(
    offer: Offer, tree: Path, dest: Path, kind: type[SinkSession] | type[SourceSession], op: str
) -> None:
    order = source_order(tree) if kind is SourceSession else sink_order(dest, offer.summary)
    with local(kind, order) as mover, pytest.raises(UsageError, match=f"does not know the order '{op}'"):
        mover.session.handle({"op": op})


def test_signs_of_life(offer: Offer, dest: Path) -> None:
    with local(SinkSession, sink_order(dest, offer.summary)) as sink:
        sink.events.clear()
        for now in (100.0, 100.2, 101.9, 102.0, 102.4):
            sink.session.tick(now)
        assert sink.events == [{"event": "progress", "bytes": 0}] * 2  # at 100.0 and 102.0
        sink.session.replica.describe(offer.manifest, b"", 1, present=True)
        for now in (102.45, 102.5, 102.9):
            sink.session.tick(now)
        assert sink.events[2:] == [{"event": "progress", "bytes": len(offer.data)}]


# resuming, and giving up --------------------------------------------------------------------------------


def interrupted(made: Transfer, offer: Offer, dest: Path, blocks: int, keep: bool) -> bool:
    """Fetch some blocks, then stop; whether a partial replica was kept."""
    part = offer.part(made, blocks)
    sink = Local(SinkSession, sink_order(dest, offer.summary))
    sink.session.handle(run_order(part.peer))
    until("the blocks are there", lambda: sink.session.replica.fetched >= blocks * BLOCK)
    return sink.session.close(keep)


def test_resume_fetches_only_what_is_missing(made: Transfer, offer: Offer, tree: Path, dest: Path) -> None:
    assert interrupted(made, offer, dest, 12, keep=True)
    assert len(areas(dest)) == 1
    assert not (dest / "top").exists()
    source = offer.whole(made)
    with local(SinkSession, sink_order(dest, offer.summary)) as sink:
        sink.session.handle(run_order(source.peer))
        sink.session.handle(root_order(offer.root))
        done = sink.expect("done")
    assert (done["reused"], done["fetched"]) == (12 * BLOCK, len(offer.data) - 12 * BLOCK)
    assert listing(dest / "top") == listing(tree)


def test_resume_without_the_sources_digests_fetches_all(made: Transfer, offer: Offer, tree: Path, dest: Path) -> None:
    assert interrupted(made, offer, dest, 12, keep=True)
    source = offer.whole(made)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = Peer("nobody", *listener.getsockname())
    with local(SinkSession, sink_order(dest, offer.summary)) as sink:
        sink.session.handle(run_order(nobody, [source.peer]))
        sink.session.handle(root_order(offer.root))
        assert sink.expect("done")["fetched"] == len(offer.data)
        assert "cannot compare with what is here already" in sink.notes()[0]
    assert listing(dest / "top") == listing(tree)


@pytest.mark.parametrize(("blocks", "keep"), [(12, False), (0, True)])
def test_what_is_not_to_be_kept_goes(made: Transfer, offer: Offer, dest: Path, blocks: int, keep: bool) -> None:
    assert not interrupted(made, offer, dest, blocks, keep)
    assert os.listdir(dest) == []


def test_a_full_disk_is_given_its_space_back(
    made: Transfer, offer: Offer, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = offer.whole(made)
    pwrite = os.pwrite
    written: list[int] = []

    def filling(fd: int, data: bytes, offset: int) -> int:
        written.append(len(data))
        if len(written) > 10:
            raise OSError(28, "No space left on device")
        return pwrite(fd, data, offset)

    sink = Local(SinkSession, sink_order(dest, offer.summary))
    monkeypatch.setattr(os, "pwrite", filling)
    sink.session.handle(run_order(source.peer))
    with pytest.raises(SpaceError, match="No space left on device; free space there"):
        sink.expect("complete")
    monkeypatch.undo()
    assert not sink.session.close(keep=True)
    assert os.listdir(dest) == []


@pytest.mark.parametrize("moment", ["opened", "manifest", "complete", "done"])
def test_close_at_any_moment(
    made: Transfer, offer: Offer, tree: Path, dest: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = made.sink("waiting")  # has no manifest and will not get one
    source = offer.whole(made)
    sink = Local(SinkSession, sink_order(dest, offer.summary))
    if moment == "manifest":
        sink.session.handle(run_order(source.peer, [waiting.peer, source.peer]))
        until("it asks", lambda: waiting.publisher._peers)
    elif moment != "opened":
        sink.session.handle(run_order(source.peer))
        if moment == "done":
            sink.session.handle(root_order(offer.root))
        sink.expect(moment)
    begun = time.monotonic()
    assert sink.session.close(keep=True) == (moment == "complete")
    assert time.monotonic() - begun < 2
    assert len(areas(dest)) == (moment == "complete")
    assert (dest / "top").exists() == (moment == "done")
    SinkSession(sink_order(dest, offer.summary), lambda event: None).close(keep=False)


@pytest.mark.skipif(not ROOT, reason="only root can mount a file system")
def test_a_destination_that_is_too_small_is_said_at_once(offer: Offer, dest: Path) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", dest], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        with pytest.raises(SpaceError, match="its file system has"):
            SinkSession(sink_order(dest, offer.summary), lambda event: None)
        assert os.listdir(dest) == []
    finally:
        subprocess.run(["umount", dest], check=True)


@pytest.mark.skipif(not ROOT, reason="only root can mount a file system")
def test_only_what_will_be_written_needs_room(made: Transfer, dest: Path, tmp_path: Path) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", dest], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        path = tmp_path / "file"
        for fetched in (600_000, 0):  # the second time all of it is there, and what is free would not do
            path.write_bytes(b"x" * 600_000)
            offer = Offer(path)
            source = offer.whole(made)
            with local(SinkSession, sink_order(dest, offer.summary)) as sink:
                sink.session.handle(run_order(source.peer))
                sink.session.handle(root_order(offer.root))
                assert sink.expect("done")["fetched"] == fetched
        path.write_bytes(b"y" * 600_000)
        offer = Offer(path)
        source = offer.whole(made)
        with local(SinkSession, sink_order(dest, offer.summary)) as sink:
            sink.session.handle(run_order(source.peer))
            with pytest.raises(SpaceError, match="needs 600,000 bytes, its file system has"):
                sink.expect("done")
        assert (os.listdir(dest), (dest / "file").read_bytes()) == (["file"], b"x" * 600_000)
    finally:
        subprocess.run(["umount", dest], check=True)


def test_order_digest_is_blind_to_what_differs_from_node_to_node(offer: Offer, dest: Path) -> None:
    order = sink_order(dest, offer.summary)
    other = {**order, "transfer": "1", "key": "2", "host": "3", "root": "4"}
    assert order_digest(order) == order_digest(other)
    assert order_digest(order) == order_digest(json.loads(json.dumps(order)))
    assert order_digest({**order, "dest": "/elsewhere"}) != order_digest(order)
    assert order_digest({**order, "preserve": False}) != order_digest(order)


# the program --------------------------------------------------------------------------------------------


class Program:
    """`python -m staging.mover` as whoever drives it sees it."""

    def __init__(self, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "staging.mover"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )

    def send(self, order: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order if isinstance(order, str) else json.dumps(order) + "\n")
        self.process.stdin.flush()

    def expect(self, name: str) -> Event:
        """The next event of this name."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: Event = json.loads(line)
            if event["event"] == name:
                return event
            assert event["event"] != "error", event
        raise AssertionError(f"no {name}")

    def end(self, hang_up: bool = True) -> tuple[int, Event | None]:
        """Exit code and last event, once its orders are closed (or without that, where it is to end by itself)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        if hang_up:
            self.process.stdin.close()
        lines = [] if self.process.stdout.closed else self.process.stdout.readlines()
        assert self.process.stderr.read() == ""
        return self.process.wait(SECONDS), json.loads(lines[-1]) if lines else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.close()


@pytest.fixture
def program(programs: list[Program]) -> Program:
    programs.append(Program())
    return programs[0]


def test_program_source_and_sinks(programs: list[Program], tree: Path, dest: Path) -> None:
    programs += [Program(), Program(), Program()]
    source, one, two = programs
    source.send(source_order(tree))
    opened = source.expect("opened")
    peers = []
    for number, sink in enumerate((one, two)):
        (dest / str(number)).mkdir()
        sink.send(sink_order(dest / str(number), opened["manifest"]))
        peers.append(Peer(f"n{number}", *sink.expect("opened")["endpoint"]))
    assert Path(f"/proc/{one.process.pid}/comm").read_text() == "stage-mover\n"
    publisher = Peer("source", *opened["endpoint"])
    one.send(run_order(publisher))
    two.send(run_order(publisher, [peers[0], publisher]))
    for sink in (one, two):
        sink.expect("complete")
    source.send({"op": "seal"})
    root = source.expect("root")["digest"]
    for number, sink in enumerate((one, two)):
        sink.send(root_order(root))
        assert sink.expect("done")["digest"] == root
        assert listing(dest / str(number) / "top") == listing(tree)
    for mover in programs:
        mover.send({"op": "finish"})
        code, last = mover.end()
        assert (code, last is None or last["event"] != "error") == (0, True)
    assert areas(dest) == []


@pytest.mark.parametrize(
    "order",
    [
        {"op": "run"},
        {"op": "open", "role": "spectator"},
        {"op": "open", "role": "source"},
        {"op": "open", "role": "sink", "transfer": "zz", "key": "", "host": ""},
        {},
        [],
        5,
        "{not JSON\n",
    ],
    ids=str,
)
def test_program_refuses_a_bad_first_order(program: Program, order: object) -> None:
    program.send(order)
    code, last = program.end()
    assert last is not None
    assert (code, last["error"]["class"], last["partial"]) == (2, "UsageError", False)


def test_program_with_no_orders_at_all(program: Program) -> None:
    code, last = program.end()
    assert (code, last and last["error"]["class"]) == (5, "Interrupted")


def test_program_is_bound_to_its_order(programs: list[Program], tree: Path) -> None:
    order = source_order(tree)
    programs += [Program(STAGE_ORDER=order_digest(order)), Program(STAGE_ORDER=order_digest(order))]
    right, wrong = programs
    right.send(order)
    right.expect("opened")
    right.send({"op": "finish"})
    assert right.end()[0] == 0
    wrong.send(source_order(Path("/etc/shadow")))
    code, last = wrong.end()
    assert (code, last and last["error"]["class"]) == (7, "RefusedError")


def test_program_names_the_source_that_is_missing(program: Program, tmp_path: Path) -> None:
    program.send(source_order(tmp_path / "gone"))
    code, last = program.end()
    assert code == 4
    assert last is not None
    assert last["error"]["message"] == f"cannot read {tmp_path}/gone: No such file or directory"


def test_program_names_the_source_that_changed(program: Program, tree: Path) -> None:
    program.send(source_order(tree))
    program.expect("opened")
    (tree / "big").write_bytes(b"other")
    program.send({"op": "seal"})
    code, last = program.end(hang_up=False)
    assert last is not None
    assert (code, last["error"]["class"]) == (4, "SourceChanged")
    assert last["error"]["message"] == f"{tree}/big changed while it was read"


def test_program_refuses_an_order_in_the_middle_that_cannot_be_read(program: Program, tree: Path) -> None:
    program.send(source_order(tree))
    program.expect("opened")
    program.send('{"no": "op"}\n')
    code, last = program.end()
    assert (code, last and last["error"]["class"]) == (2, "UsageError")


def midway(program: Program, made: Transfer, offer: Offer, dest: Path) -> Member:
    """Bring a sink to where it has 12 blocks and waits for more from the member that is returned."""
    part = offer.part(made, 12)
    program.send(sink_order(dest, offer.summary))
    program.expect("opened")
    program.send(run_order(part.peer))
    while program.expect("progress")["bytes"] < 12 * BLOCK:
        pass
    return part


@pytest.mark.leaves_partial
@pytest.mark.parametrize("how", ["end of orders", "SIGTERM", "abort"])
def test_program_keeps_a_partial_replica(program: Program, made: Transfer, offer: Offer, dest: Path, how: str) -> None:
    midway(program, made, offer, dest)
    if how == "SIGTERM":
        program.process.send_signal(signal.SIGINT)  # is for whoever drives it
        program.process.terminate()
    elif how == "abort":
        program.send({"op": "abort", "keep": True})
    code, last = program.end(hang_up=how == "end of orders")
    assert last is not None
    assert (code, last["error"]["class"], last["partial"]) == (5, "Interrupted", True)
    assert len(areas(dest)) == 1
    assert not (dest / "top").exists()


@pytest.mark.leaves_partial
def test_program_ends_when_nobody_reads_what_it_says(
    program: Program, made: Transfer, offer: Offer, dest: Path
) -> None:
    part = midway(program, made, offer, dest)
    assert program.process.stdout is not None
    program.process.stdout.close()
    offer.give(part, range(12, 20))  # so that it has something to say
    assert program.end(hang_up=False) == (5, None)
    assert len(areas(dest)) == 1


def test_program_leaves_nothing_when_told_so(program: Program, made: Transfer, offer: Offer, dest: Path) -> None:
    midway(program, made, offer, dest)
    program.send({"op": "abort", "keep": False})
    code, last = program.end()
    assert last is not None
    assert (code, last["error"]["class"], last["partial"]) == (5, "Interrupted", False)
    assert os.listdir(dest) == []
