"""One host of a cluster: its addresses, its files, and processes in it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.hosts import enter
from tests.hosts.etc import UIDS
from tests.hosts.network import HostsError, Place

OWN = {"etc": 0o755, "home": 0o755, "root": 0o711, "run": 0o755, "scratch": 0o1777, "tmp": 0o1777}  # and modes
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("LONGSHORE_TEST_RUN", "COVERAGE_PROCESS_START", "COVERAGE_FILE")
SECONDS = 60.0


class Host:
    """A host, up or down. While it is down `pid` is None and nothing can be started on it."""

    def __init__(self, place: Place, users: Mapping[str, int]) -> None:
        self.place = place
        self._users = users
        self.name = place.name
        self.pid: int | None = None
        self._pidfd: int | None = None
        self._services: set[int] = set()
        self._children: list[subprocess.Popen[Any]] = []

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address} {'down' if self.pid is None else f'pid {self.pid}'}>"

    @property
    def address(self) -> str:
        return self.place.addresses[0]

    @property
    def address6(self) -> str:
        return self.place.addresses6[0]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The IPv4 address of each NIC."""
        return self.place.addresses

    @property
    def addresses6(self) -> tuple[str, ...]:
        return self.place.addresses6

    def path(self, path: str | os.PathLike[str]) -> Path:
        """Where the caller's process finds a file of this host. A link with an absolute target leads astray."""
        return Path(f"/proc/{self._up()}/root") / os.fspath(path).lstrip("/")

    def owns(self, path: str) -> bool:
        """Whether what is made at `path` is made on this host alone: below /scratch, say, but not below /usr."""
        top = path.split("/")[1]
        return top in OWN or not os.path.lexists(f"/{top}")

    def popen(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Start a command on this host, as root or as `user`, with a plain environment and `env` on top.

        Further options are those of `subprocess.Popen`. The process is the caller's child and dies with the host.
        """
        pid, pidfd = self.process()
        identity: dict[str, Any] = {}
        if user is not None and user != "root":
            uid = self._users.get(user)
            if uid is None:
                raise HostsError(f"no user {user!r} on {self.name}: users=True gives it {' and '.join(UIDS)}")
            identity = {"user": uid, "group": uid, "extra_groups": []}
        words = [os.fspath(word) for word in argv]
        environment = {**environment_of(user or "root"), **(env or {})}
        child = enter.popen(pid, pidfd, enter.ALL, words, env=environment, cwd=cwd, **identity, **options)
        self._children = [known for known in self._children if known.returncode is None] + [child]
        return child

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        user: str | None = None,
        input: str | bytes | None = None,
        timeout: float = SECONDS,
        text: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command on this host to its end and take its output, as `subprocess.run` does."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        options["stdin"] = subprocess.DEVNULL if input is None else subprocess.PIPE
        with self.popen(argv, user=user, text=text, **options) as process:
            try:
                out, err = process.communicate(input, timeout=timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        try:
            if check:
                done.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(f"on {self.name}: {out!r} {err!r}")
            raise
        return done

    def sent(self) -> int:
        """Bytes that left by the host's links since it was booted."""
        return sum(int(words[8]) for words in self._counters())

    def received(self) -> int:
        """Bytes that came in by the host's links since it was booted."""
        return sum(int(words[0]) for words in self._counters())

    def listens(self, port: int) -> bool:
        """Whether somebody on this host accepts TCP connections at `port`."""
        wanted = f":{port:04X}"
        tables = (Path(f"/proc/{self._up()}/net/{name}").read_text() for name in ("tcp", "tcp6"))
        rows = (line.split() for table in tables for line in table.splitlines()[1:])
        return any(row[1].endswith(wanted) and row[3] == "0A" for row in rows)

    def _counters(self) -> list[list[str]]:
        lines = Path(f"/proc/{self._up()}/net/dev").read_text().splitlines()[2:]
        return [rest.split() for name, rest in (line.split(":", 1) for line in lines) if name.strip().startswith("eth")]

    def _up(self) -> int:
        if self.pid is None:
            raise HostsError(f"{self.name} is down: boot it first")
        return self.pid

    # What follows is the cluster's business.

    def process(self) -> tuple[int, int]:
        """The pid of the host's init and a pidfd of it."""
        pid = self._up()
        assert self._pidfd is not None
        return pid, self._pidfd

    def came_up(self, pid: int) -> None:
        self.pid, self._pidfd = pid, os.pidfd_open(pid)

    def is_ready(self) -> None:
        """Its init has started the services, and nobody has started anything else yet."""
        pid = self._up()
        self._services = {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def own_processes(self) -> set[int]:
        """The pids of the host's init and services, as the caller sees them."""
        return set() if self.pid is None else {self.pid, *self._services}

    def kill(self) -> None:
        """Kill the host's init, and so every process on the host, and wait until all are gone."""
        if self._pidfd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        deadline = time.monotonic() + SECONDS
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        # An init ends when its last process is reaped, and some may be children of ours.
        while not ended.poll(2):
            for child in self._children:
                child.poll()
            if time.monotonic() > deadline:
                raise HostsError(f"{self.name} did not end: something on it cannot be killed")
        os.close(self._pidfd)
        self.pid = self._pidfd = None
        for child in self._children:
            child.wait(SECONDS)  # without root it is an nsenter, which ends a moment after what it entered for
        self._children.clear()


def environment_of(user: str) -> dict[str, str]:
    """What a process on a host has in its environment; the commands of this Python's environment come first."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    home = "/root" if user == "root" else f"/home/{user}"
    path = f"{os.path.dirname(sys.executable)}:{SYSTEM_PATH}"
    return {"PATH": path, "HOME": home, "USER": user, "LOGNAME": user, "LANG": "C.UTF-8", "SHELL": "/bin/sh", **passed}
