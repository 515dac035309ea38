"""A cluster of hosts in namespaces of this machine: made, changed while it runs, and taken down without a trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.hosts import etc, network, services
from tests.hosts.host import Host
from tests.hosts.links import Links
from tests.hosts.network import HostsError, Link, Place
from tests.hosts.switch import ROOT, Switch, Talk

HEAD = "head"
FIRST = 11  # the number of n1 in the networks; the head has 1

_running: set[Cluster] = set()


class Cluster:
    """Hosts n1..nN and `head`, alike but for their names, on `nics` networks.

    rate, loss, duplicates, delay: of every host's links at first, see the methods of these names.
    sshd: `ssh n1` works on every host, for each user, and for root to every user.
    munged: every host has one, all with the same key.
    users: alice and bob exist.
    scratch: a directory on disk; its subdirectories become the hosts' /scratch and outlive a crash.
    shared: more directories of the machine that hosts may see though they lie below /tmp, /home, /root or /run.
    """

    def __init__(
        self,
        n: int,
        *,
        rate: str | None = None,
        loss: str | None = None,
        duplicates: str | None = None,
        delay: str | None = None,
        nics: int = 1,
        sshd: bool = False,
        munged: bool = False,
        users: bool = False,
        scratch: str | os.PathLike[str] | None = None,
        shared: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        names = [(HEAD, 1), *((f"n{k}", FIRST + k - 1) for k in range(1, n + 1))]
        self._users = etc.UIDS if users else {}
        self.hosts = {name: Host(Place(name, index, nics), self._users) for name, index in names}
        self.ssh_config = Path("/etc/ssh/ssh_config")  # on every host
        self._nics = nics
        self._scratch = None if scratch is None else Path(scratch).absolute()
        self._shared = sorted({str(Path(p).absolute()) for p in (ROOT, sys.prefix, sys.base_prefix, *shared)})
        self._keys = etc.make_keys(self._users) if sshd else None
        self._services = [*([services.sshd()] if sshd else []), *([services.munged()] if munged else [])]
        self._switch = Switch()
        self._links = Links(self._switch, self.hosts.values(), Link(rate, loss, duplicates, delay))

    @property
    def head(self) -> Host:
        return self.hosts[HEAD]

    @property
    def nodes(self) -> list[Host]:
        """All hosts but the head, in order."""
        return [host for name, host in self.hosts.items() if name != HEAD]

    def __getitem__(self, name: str) -> Host:
        if name not in self.hosts:
            raise HostsError(f"no host {name!r}: there are {', '.join(self.hosts)}")
        return self.hosts[name]

    def __enter__(self) -> Cluster:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def up(self) -> None:
        """Start the keeper and boot all hosts; returns when they and their services are ready."""
        _running.add(self)
        try:
            self._switch.start()
            self._switch.batch("ip", network.switch_lines(self._nics))
            self._boot(list(self.hosts.values()))
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Kill every host's init, then the keeper. Nothing is left; a second call does nothing."""
        with ExitStack() as stack:  # the last one first, and each whatever becomes of the others
            stack.callback(_running.discard, self)
            stack.callback(self._switch.stop)
            stack.callback(self._links.stop)
            for host in self.hosts.values():
                stack.callback(host.kill)

    def crash(self, name: str) -> None:
        """Cut a host's power: its processes are killed, its memory and its links are gone."""
        host = self[name]
        if host.pid is not None:
            self._links.disconnect(host)  # first: the kernel takes the links of a dead host away at its leisure
            host.kill()

    def boot(self, name: str) -> None:
        """Start a host that is down, with its addresses, link settings and services; /scratch is empty or on disk."""
        host = self[name]
        if host.pid is None:
            self._boot([host])

    def rate(self, name: str, rate: str | None) -> None:
        """Limit a host's links, each way, to a rate on the wire such as '200mbit'. None: no limit."""
        self._links.rate(self[name], rate)

    def loss(self, name: str, share: str | None) -> None:
        """Lose a share, such as '1%', of the packets on their way to a host."""
        self._links.loss(self[name], share)

    def duplicates(self, name: str, share: str | None) -> None:
        """Deliver a share of the packets to a host twice."""
        self._links.duplicates(self[name], share)

    def delay(self, name: str, time: str | None) -> None:
        """Delay packets by a time, such as '2ms', on their way to a host and again on their way from it."""
        self._links.delay(self[name], time)

    def cut(self, name: str) -> None:
        """Separate a host from all others; it and they are not told."""
        self._links.cut(self[name], True)

    def heal(self, name: str) -> None:
        """End what `cut` did."""
        self._links.cut(self[name], False)

    def disk(self, name: str, path: str, size: str) -> None:
        """Give a host an empty disk of a size such as '64m' at `path`."""
        host = self[name]
        if not host.path(path).is_dir():
            if not host.owns(path):
                raise HostsError(
                    f"{path} would be made on the machine: choose a directory that is there, or one below /scratch"
                )
            host.run(["mkdir", "-p", path])
        host.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", path])

    def own_processes(self) -> set[int]:
        """The pids of inits, services and forwarders, which come and go with their hosts below the keeper."""
        return {pid for host in self.hosts.values() for pid in host.own_processes()} | set(self._links.forwarders())

    def _boot(self, hosts: list[Host]) -> None:
        """Boot hosts together, step by step."""
        with ExitStack() as stack:
            talks: list[tuple[Host, Talk]] = []
            for host in hosts:
                talk = self._switch.fork(host.name, self._spec(host))
                talks.append((host, stack.enter_context(closing(talk))))
            for host, talk in talks:
                host.came_up(int(talk.hear("pid")))
                talk.hear("up")
            self._links.connect(hosts)
            for host, talk in talks:
                talk.say(self._links.host_setup(host))
            for host, talk in talks:
                talk.hear("ready")
                host.is_ready()
        for host in hosts:
            services.wait_until_ready(host, self._services)

    def _spec(self, host: Host) -> dict[str, Any]:
        return {
            "name": host.name,
            "files": {**self._etc_files(), "hostname": (0o644, host.name + "\n")},
            "homes": self._homes(),
            "services": [service.spec() for service in self._services],
            "shared": self._shared,
            "scratch": self._disk_of(host),
        }

    def _etc_files(self) -> etc.Files:
        places = [host.place for host in self.hosts.values()]
        files = etc.user_files(Path("/etc/passwd").read_text(), Path("/etc/group").read_text(), self._users)
        files["hosts"] = (0o644, etc.hosts_file(places))
        if self._keys is not None:
            files |= etc.ssh_files(self._keys, places)
        return files

    def _homes(self) -> list[dict[str, Any]]:
        homes = [("root", "/root", 0), *((name, f"/home/{name}", uid) for name, uid in self._users.items())]
        return [
            {"path": path, "uid": uid, "files": etc.home_files(self._keys, user) if self._keys else {}}
            for user, path, uid in homes
        ]

    def _disk_of(self, host: Host) -> str | None:
        if self._scratch is None:
            return None
        directory = self._scratch / host.name
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o1777)
        return str(directory)


def own_processes() -> set[int]:
    """The pids that this process's running clusters own beside their keepers."""
    return {pid for cluster in _running for pid in cluster.own_processes()}
