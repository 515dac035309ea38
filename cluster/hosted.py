"""A cluster of real hosts: the head on this one, a node service on each of the others, started by ssh.

What is put on a host goes away with its node service, which goes away with the head.
"""

from __future__ import annotations

import ipaddress
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cluster import door, embedded, ssh
from cluster.hosts import Host
from cluster.keyfiles import locked
from cluster.layout import Layout
from cluster.remote import Kit, Session
from cluster.startup import START_SECONDS, NodeSpec, StartedHead, prepare, running, start_head, wait_head
from staging.mover.errors import StageError, TemporaryError, UsageError, describe

KIND = "hosts"
AT_ONCE = 32

T = TypeVar("T")
R = TypeVar("R")
Tell = Callable[[str, StageError | None], None]


@dataclass(frozen=True)
class Options:
    """How hosts are reached, and what is used there; "" for the default."""

    python: str = ""
    address: str = ""
    directory: str = ""
    ssh_config: str = ""
    connect_seconds: float = ssh.CONNECT_SECONDS
    at_once: int = AT_ONCE


@dataclass
class Outcome:
    up: list[str] = field(default_factory=list)
    failed: dict[str, StageError] = field(default_factory=dict)


@dataclass(frozen=True)
class _Place:
    """A host, what ssh's configuration says of it, and its address."""

    host: Host
    config: ssh.Config
    address: str


def start(layout: Layout, hosts: Sequence[Host], services: Sequence[str], options: Options, tell: Tell) -> Outcome:
    """Start what is missing of a cluster of these hosts; `tell` hears of each that came up or did not.

    Where none comes up the head ends again. Raises UsageError, and TemporaryError when the head does not start.
    """
    layout.make()
    with locked(layout.base):  # two at once would each start a head
        return _Start(layout, options, tell).run(hosts, services)


class _Start:
    def __init__(self, layout: Layout, options: Options, tell: Tell) -> None:
        self._layout = layout
        self._options = options
        self._tell = tell
        self._outcome = Outcome()
        self._dialer = ssh.Dialer(options.connect_seconds, options.ssh_config)
        self._kit: Kit | None = None
        self._kit_ready = threading.Event()

    def run(self, hosts: Sequence[Host], services: Sequence[str]) -> Outcome:
        there = running(self._layout)
        if there:
            hosts = self._missing(hosts)
        head: StartedHead | None = None
        try:
            found = _Crowd(hosts, self._find, self._options.at_once)
            places = [place for _, place in self._good(found, lambda host: host.name)]
            if places and not there:
                prepare(self._layout)
                head = start_head(self._layout, self._options.address or _route(places), KIND, services)
            crowd = _Crowd(places, self._reach, self._options.at_once)
            if places:
                self._kit = Kit.read(self._layout, wait_head(self._layout, head.process if head else None))
                self._kit_ready.set()
            for place, _ in self._good(crowd, lambda p: p.host.name):
                self._outcome.up.append(place.host.name)
                self._tell(place.host.name, None)
        except BaseException:
            self._dialer.close()
            self._undo(head, there)
            raise
        finally:
            self._dialer.close()
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
        nodes = door.ask(self._layout, {"op": "status"})["nodes"]
        present = {node["name"] for node in nodes if node["state"] == "up"}
        self._outcome.up += [host.name for host in hosts if host.name in present]
        return [host for host in hosts if host.name not in present]

    def _find(self, host: Host) -> _Place:
        config = ssh.configured(host.target, host.user, self._options.ssh_config)
        return _Place(host, config, ssh.resolve(config))

    def _reach(self, place: _Place) -> int:
        """Start the node service there; its pid. Its connection is made while the head starts."""
        client = self._dialer.connect(place.config, place.address)
        try:
            session = Session(client, self._options.python)
            if not self._kit_ready.wait(START_SECONDS) or self._kit is None:
                raise TemporaryError("the head did not come up")
            if _is_loopback(place.address) and not _is_loopback(self._kit.head.host):
                raise UsageError(f"its address {place.address} is of use on this host only", "give NAME=ADDRESS")
            spec = NodeSpec(place.host.name, place.address, "")
            return session.start(self._kit.payload(spec, self._options.directory))
        finally:
            client.close()

    def _good(self, crowd: _Crowd[T, R], name: Callable[[T], str]) -> Iterator[tuple[T, R]]:
        """What went well; the others' lines are told."""
        for item, value, error in crowd.results():
            if error is None:
                assert value is not None
                yield item, value
            else:
                self._outcome.failed[name(item)] = error
                self._tell(name(item), error)


class _Crowd(Generic[T, R]):
    """The same work for many, at most so many at once, in threads that nobody waits for after ^C."""

    def __init__(self, items: Iterable[T], work: Callable[[T], R], at_once: int) -> None:
        self._todo: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[T, R | None, StageError | None]] = queue.SimpleQueue()
        self._work = work
        self._count = 0
        for item in items:
            self._todo.put(item)
            self._count += 1
        for _ in range(min(at_once, self._count)):
            threading.Thread(target=self._run, daemon=True).start()

    def results(self) -> Iterator[tuple[T, R | None, StageError | None]]:
        for _ in range(self._count):
            yield self._done.get()

    def _run(self) -> None:
        while True:
            try:
                item = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._done.put((item, self._work(item), None))
            except StageError as error:
                self._done.put((item, None, error))
            except Exception as error:
                self._done.put((item, None, StageError(describe(error)[0])))


def _route(places: Sequence[_Place]) -> str:
    """This host's own address on the way to most of the hosts, and rather not one that only this host can reach."""
    found = Counter(address for place in places if (address := ssh.own_address(place.address)))
    if not found:
        raise TemporaryError("there is no way to any of the hosts", "give --address")
    return max(found, key=lambda address: (not _is_loopback(address), found[address]))


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
