"""A cluster of hosts in namespaces of this machine: made, changed while it runs, and taken down without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.hosts import enter, etc, network
from tests.hosts.host import SYSTEM_PATH, Host
from tests.hosts.network import HostsError, Link, Place

ROOT = Path(__file__).resolve().parents[2]
HEAD = "head"
FIRST = 11  # the number of n1 in the networks; the head has 1
MARK = "LONGSHORE_TEST_HOSTS"  # in the environment of what belongs to a cluster itself
STEP_SECONDS = 30.0
SSH_PORT = 22


class Cluster:
    """Hosts n1..nN and `head`, alike but for their names, on `nics` networks.

    rate, loss, duplicates, delay: of every host's links at first, see the methods of these names. sshd: every host has
    one that takes the cluster's key. munged: every host has one, with one key. users: alice and bob exist. scratch: a
    directory on disk; its subdirectories become the hosts' /scratch and outlive a crash. shared: more directories
    of the machine that hosts may see though they lie below /tmp, /home, /root or /run.
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
        self.hosts = {name: Host(Place(name, index, nics)) for name, index in names}
        self.ssh_config = Path("/etc/ssh/ssh_config")  # on every host
        self._nics = nics
        self._sshd, self._munged = sshd, munged
        self._users = etc.UIDS if users else {}
        self._scratch = None if scratch is None else Path(scratch).absolute()
        self._shared = sorted({str(Path(p).absolute()) for p in (ROOT, sys.prefix, sys.base_prefix, *shared)})
        self._links = {name: Link(rate, loss, duplicates, delay) for name in self.hosts}
        self._keys = etc.make_keys() if sshd else None
        self._files = self._etc_files()
        self._segmented = False
        self._keeper: subprocess.Popen[bytes] | None = None
        self._keeper_pidfd = -1
        self._control: socket.socket | None = None

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
        try:
            self._start_keeper()
            self._switch("ip", network.switch_lines(self._nics))
            self._boot(list(self.hosts.values()))
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Kill every host's init, then the keeper. Nothing is left; a second call does nothing."""
        for host in self.hosts.values():
            host.kill()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._keeper is not None:
            self._keeper.wait(STEP_SECONDS)
            os.close(self._keeper_pidfd)
            self._keeper = None

    def crash(self, name: str) -> None:
        """Cut a host's power: its processes are killed, its memory and its links are gone."""
        host = self[name]
        host.kill()
        self._switch("ip", [f"link del {port}" for port in host.place.ports()])

    def boot(self, name: str) -> None:
        """Start a host that is down, with its addresses, link settings and services; its /scratch is empty or on disk."""
        host = self[name]
        if host.pid is None:
            self._boot([host])

    def rate(self, name: str, rate: str | None) -> None:
        """Limit a host's links, each way, to a rate on the wire such as '200mbit'."""
        host = self[name]
        network.rate_lines([], rate) if rate is None else network.bits(rate)
        self._links[name].rate = rate
        if host.pid is not None:
            self._tool(host, "tc", network.rate_lines(host.place.devices(), rate))
            self._switch("tc", network.rate_lines(host.place.ports(), rate))

    def loss(self, name: str, loss: str | None) -> None:
        """Lose a share, such as '1%', of the packets on their way to a host."""
        if loss is not None:
            network.share(loss)
        self._links[name].loss = loss
        self._set_faults(self[name])

    def duplicates(self, name: str, share: str | None) -> None:
        """Deliver a share of the packets to a host twice."""
        if share is not None:
            network.share(share)
        self._links[name].duplicates = share
        self._set_faults(self[name])

    def cut(self, name: str) -> None:
        """Separate a host from all others; it and they are not told."""
        self._set_cut(name, True)

    def heal(self, name: str) -> None:
        """End what `cut` did."""
        self._set_cut(name, False)

    def disk(self, name: str, path: str, size: str) -> None:
        """Give a host an empty disk of a size such as '64m' at `path`."""
        host = self[name]
        host.run(["mkdir", "-p", path])
        host.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", path])

    def _set_cut(self, name: str, cut: bool) -> None:
        host = self[name]
        self._links[name].cut = cut
        if host.pid is not None:
            self._switch("bridge", network.port_lines(host.place, cut))

    def _set_faults(self, host: Host) -> None:
        link = self._links[host.name]
        if link.loss or link.duplicates:
            self._segment()
        if host.pid is not None:
            self._network_tool(None, ["nft", "-f", "-"], network.fault_lines(host.place, link))

    def _segment(self) -> None:
        """Have all hosts send single packets from now on."""
        if self._segmented:
            return
        self._segmented = True
        for host in self.hosts.values():
            if host.pid is not None:
                self._tool(host, "ip", network.segment_lines(host.place.devices()))

    def _etc_files(self) -> etc.Files:
        places = [host.place for host in self.hosts.values()]
        files = etc.user_files(Path("/etc/passwd").read_text(), Path("/etc/group").read_text(), self._users)
        files["hosts"] = (0o644, etc.hosts_file(places))
        if self._keys is not None:
            files |= etc.ssh_files(self._keys, places)
        return files

    def _start_keeper(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(STEP_SECONDS)
        userns = "0" if os.geteuid() == 0 else "1"
        with theirs:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.hosts.keeper", str(theirs.fileno()), str(os.getpid()), userns],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**_plain_environment(), MARK: "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._keeper_pidfd = os.pidfd_open(self._keeper.pid)
        if not self._control.recv(100):
            raise HostsError("the kernel refuses namespaces: be root, or allow user namespaces to your user")

    def _boot(self, hosts: list[Host]) -> None:
        """Boot hosts together, step by step."""
        assert self._control is not None
        talks: list[tuple[Host, socket.socket]] = []
        with contextlib.ExitStack() as stack:
            for host in hosts:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                stack.enter_context(ours).settimeout(STEP_SECONDS)
                with theirs:
                    socket.send_fds(self._control, [json.dumps(self._spec(host)).encode()], [theirs.fileno()])
                talks.append((host, ours))
            for host, talk in talks:
                host.came_up(int(_hear(host, talk, "pid")))
                _hear(host, talk, "up")
            self._connect(hosts)
            for host, talk in talks:
                devices, link = host.place.devices(), self._links[host.name]
                lines = network.host_lines(host.place) + (network.segment_lines(devices) if self._segmented else [])
                limits = network.rate_lines(devices, link.rate) if link.rate else []
                talk.send(json.dumps({"ip": lines, "tc": limits}).encode())
            for host, talk in talks:
                _hear(host, talk, "ready")
        if self._sshd:
            for host in hosts:
                _wait_for(f"sshd on {host.name}", lambda host=host: host.listens(SSH_PORT))

    def _connect(self, hosts: list[Host]) -> None:
        """Links between the switch and hosts that have none yet, as they are set."""
        links = {host: self._links[host.name] for host in hosts}
        lines = [line for host in hosts for line in network.cable_lines(host.place, host.pid or 0)]
        self._switch("ip", lines)
        cuts = [line for host, link in links.items() if link.cut for line in network.port_lines(host.place, True)]
        if cuts:
            self._switch("bridge", cuts)
        limits = [x for h, link in links.items() if link.rate for x in network.rate_lines(h.place.ports(), link.rate)]
        if limits:
            self._switch("tc", limits)
        faulty = [host for host, link in links.items() if link.loss or link.duplicates]
        if faulty:
            self._segmented = True
            text = "".join(network.fault_lines(host.place, links[host]) for host in faulty)
            self._network_tool(None, ["nft", "-f", "-"], text)

    def _spec(self, host: Host) -> dict[str, Any]:
        files = {**self._files, "hostname": (0o644, host.name + "\n")}
        scratch = None
        if self._scratch is not None:
            directory = self._scratch / host.name
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o1777)
            scratch = str(directory)
        return {
            "name": host.name,
            "files": files,
            "homes": self._homes(),
            "services": self._services(),
            "shared": self._shared,
            "scratch": scratch,
        }

    def _homes(self) -> list[dict[str, Any]]:
        files: etc.Files = {}
        if self._keys is not None:
            private, public = self._keys.user
            files = {".ssh/id_ed25519": (0o600, private), ".ssh/id_ed25519.pub": (0o644, public)}
        homes = [("/root", 0), *((f"/home/{name}", uid) for name, uid in self._users.items())]
        return [{"path": path, "uid": uid, "files": files} for path, uid in homes]

    def _services(self) -> list[dict[str, Any]]:
        services = []
        if self._sshd:
            argv = [shutil.which("sshd", path=SYSTEM_PATH) or "sshd", "-D", "-e"]
            services.append({"name": "sshd", "argv": argv, "uid": 0, "gid": 0, "directories": ["/run/sshd"]})
        return services

    def _tool(self, host: Host, command: str, lines: list[str]) -> None:
        self._network_tool(host, [command, "-batch", "-"], "\n".join(lines) + "\n")

    def _switch(self, command: str, lines: list[str]) -> None:
        self._network_tool(None, [command, "-batch", "-"], "\n".join(lines) + "\n")

    def _network_tool(self, host: Host | None, argv: list[str], text: str) -> None:
        """Run a network tool in the switch's network (None) or a host's."""
        if self._keeper is None:
            raise HostsError("the cluster is not up")
        pid, pidfd = (self._keeper.pid, self._keeper_pidfd) if host is None else host.process()
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with enter.popen(pid, pidfd, enter.NETWORK, argv, text=True, env=_plain_environment(), **options) as process:
            out, _ = process.communicate(text)
        if process.returncode != 0:
            raise HostsError(f"{' '.join(argv)}: {out.strip()}\n{text}")


def _plain_environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"}


def _hear(host: Host, talk: socket.socket, what: str) -> Any:
    """The next word of a host's init, which must be `what`."""
    message = json.loads(talk.recv(1 << 20) or b'{"error": "it ended without a word"}')
    if what not in message:
        raise HostsError(f"{host.name} does not boot: {message.get('error')}\n{message.get('trace', '')}".rstrip())
    return message[what]


def _wait_for(what: str, there: Any) -> None:
    deadline = time.monotonic() + STEP_SECONDS
    while not there():
        if time.monotonic() > deadline:
            raise HostsError(f"waited for {what} in vain")
        time.sleep(0.002)
