"""A cluster of real hosts: the head on this one, a node service on each of the others, started by ssh or by a socket.

What is put on a host goes away with its node service, which goes away with the head.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cluster import door, embedded
from cluster.addresses import is_loopback, towards
from cluster.hosts import Host
from cluster.keyfiles import locked
from cluster.kit import Kit, Place, Way
from cluster.layout import Layout
from cluster.startup import START_SECONDS, NodeSpec, StartedHead, prepare, running, start_head, wait_head
from staging.mover.errors import StageError, TemporaryError, UsageError, describe

KIND = "hosts"
AT_ONCE = 32

T = TypeVar("T")
R = TypeVar("R")
Tell = Callable[[str, StageError | None], None]


@dataclass(frozen=True)
class Options:
    """This host's address for the nodes to dial, and the directory for the nodes' files there; "" for the default."""

    address: str = ""
    directory: str = ""
    at_once: int = AT_ONCE


@dataclass
class Outcome:
    up: list[str] = field(default_factory=list)
    failed: dict[str, StageError] = field(default_factory=dict)


def start(
    layout: Layout, hosts: Sequence[Host], way: Way, services: Sequence[str], options: Options, tell: Tell
) -> Outcome:
    """Start what is missing of a cluster of these hosts; `tell` hears of each that came up or did not.

    Where none comes up the head ends again. Raises UsageError, and TemporaryError when the head does not start.
    """
    layout.make()
    with locked(layout.base):  # two at once would each start a head
        return _Start(layout, way, options, tell).run(hosts, services)


class _Start:
    def __init__(self, layout: Layout, way: Way, options: Options, tell: Tell) -> None:
        self._layout = layout
        self._options = options
        self._tell = tell
        self._outcome = Outcome()
        self._way = way
        self._kit: Kit | None = None
        self._kit_ready = threading.Event()

    def run(self, hosts: Sequence[Host], services: Sequence[str]) -> Outcome:
        there = running(self._layout)
        if there:
            hosts = self._missing(hosts)
        head: StartedHead | None = None
        try:
            found = _Crowd([(host.name, host) for host in hosts], self._way.find, self._options.at_once)
            places = [(name, place) for name, place in self._good(found)]
            if places and not there:
                prepare(self._layout)
                address = self._options.address or towards(place.address for _, place in places)
                head = start_head(self._layout, address, KIND, services)
            crowd = _Crowd([(name, (name, place)) for name, place in places], self._reach, self._options.at_once)
            if places:
                self._kit = Kit.read(self._layout, wait_head(self._layout, head.process if head else None))
                self._kit_ready.set()
            for name, _ in self._good(crowd):
                self._outcome.up.append(name)
                self._tell(name, None)
        except BaseException:
            self._way.close()
            self._undo(head, there)
            raise
        finally:
            self._way.close()
            self._kit_ready.set()
        if head is not None and self._outcome.up:
            head.release()
        else:
            self._undo(head, there)
        return self._outcome

    def _undo(self, head: StartedHead | None, there: bool) -> None:
        if head is not None:
            head.end()
        elif not there:
            embedded.remove(self._layout)

    def _missing(self, hosts: Sequence[Host]) -> list[Host]:
        if self._layout.read_head().kind != KIND:
            raise UsageError(f"the cluster in {self._layout.base} is not one of hosts", "name another with --cluster")
        nodes = door.ask(self._layout, {"op": "status", "probe": True})["nodes"]
        present = {node["name"] for node in nodes if node["state"] == "up"}
        self._outcome.up += [host.name for host in hosts if host.name in present]
        return [host for host in hosts if host.name not in present]

    def _reach(self, target: tuple[str, Place]) -> int:
        """Start the node service there; its pid. The connection is made while the head starts."""
        name, place = target
        session = place.open()
        try:
            if not self._kit_ready.wait(START_SECONDS) or self._kit is None:
                raise TemporaryError("the head did not come up")
            if is_loopback(place.address) and not is_loopback(self._kit.head.host):
                raise UsageError(f"its address {place.address} is of use on this host only", "give NAME=ADDRESS")
            return session.start(self._kit.payload(NodeSpec(name, place.address, ""), self._options.directory))
        finally:
            session.close()

    def _good(self, crowd: _Crowd[T, R]) -> Iterator[tuple[str, R]]:
        """What went well, by name; the others' lines are told."""
        for name, value, error in crowd.results():
            if error is None:
                assert value is not None
                yield name, value
            else:
                self._outcome.failed[name] = error
                self._tell(name, error)


class _Crowd(Generic[T, R]):
    """The same work for many, at most so many at once, in threads that nobody waits for after ^C."""

    def __init__(self, items: Iterable[tuple[str, T]], work: Callable[[T], R], at_once: int) -> None:
        self._todo: queue.SimpleQueue[tuple[str, T]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[str, R | None, StageError | None]] = queue.SimpleQueue()
        self._work = work
        self._count = 0
        for item in items:
            self._todo.put(item)
            self._count += 1
        for _ in range(min(at_once, self._count)):
            threading.Thread(target=self._run, daemon=True).start()

    def results(self) -> Iterator[tuple[str, R | None, StageError | None]]:
        """By name, as they come."""
        for _ in range(self._count):
            yield self._done.get()

    def _run(self) -> None:
        while True:
            try:
                name, item = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._done.put((name, self._work(item), None))
            except StageError as error:
                self._done.put((name, None, error))
            except Exception as error:
                self._done.put((name, None, StageError(describe(error)[0])))
