"""Starting the node service over one ssh connection: one command there, which is given everything on its stdin."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from dataclasses import dataclass
from typing import Any

import paramiko

from cluster import ssh
from cluster.addresses import resolve
from cluster.hosts import Host
from cluster.kit import MAX_ANSWER, pid_in
from cluster.startup import START_SECONDS
from staging.mover.errors import StageError, Unreachable, UsageError

MAX_SAID = 1 << 16
NO_PYTHON, OLD_PYTHON, NO_LONGSHORE = 95, 96, 97

# The first interpreter that has us takes the session over. No quotes of the outer kind: it passes two shells.
_CODE = (
    "import sys; sys.path[:] = filter(None, sys.path); sys.version_info < (3, 11) and sys.exit(96); "
    "import importlib.util as u; u.find_spec('cluster') and u.find_spec('cluster.bootstrap') or sys.exit(97); "
    "from cluster import bootstrap; sys.exit(bootstrap.main())"
)
_SCRIPT = (
    'cd /; r=95; {look}for p in {python}; do [ -x "$p" ] || continue; "$p" -c {code}; e=$?; '
    "case $e in 96|97) [ $r = 95 ] && r=$e;; *) exit $e;; esac; done; exit $r"
)
_LOOK = 's=$(command -v stage) && s=$(sed -n "1s/^#! *//p" "$s"); '


def command(python: str) -> str:
    """The command line for the far side's shell, whichever that is; `python`: use this interpreter only."""
    names = shlex.quote(python or sys.executable) + ("" if python else ' "$s"')
    script = _SCRIPT.format(look="" if python else _LOOK, python=names, code=shlex.quote(_CODE))
    return f"exec /bin/sh -c {shlex.quote(script)}"


@dataclass(frozen=True)
class BySsh:
    """The way to hosts with an sshd; `python`: the interpreter there, "" for what is found."""

    dialer: ssh.Dialer
    python: str = ""

    def find(self, host: Host) -> SshPlace:
        config = ssh.configured(host.target, host.user, self.dialer.file)
        return SshPlace(self, config, resolve(config.host, config.family))

    def close(self) -> None:
        self.dialer.close()


@dataclass(frozen=True)
class SshPlace:
    way: BySsh
    config: ssh.Config
    address: str

    def open(self) -> SshSession:
        return SshSession(self.way.dialer.connect(self.config, self.address), self.way.python)


class SshSession:
    """The one command that runs over a connection."""

    def __init__(self, client: paramiko.SSHClient, python: str) -> None:
        """Start the command; what it needs to be told comes later. Raises Unreachable."""
        self._python = python or sys.executable
        self._client = client
        try:
            transport = client.get_transport()
            assert transport is not None
            self._channel = transport.open_session(timeout=START_SECONDS)
            self._channel.settimeout(START_SECONDS)
            self._channel.exec_command(command(python))
        except (paramiko.SSHException, EOFError, OSError) as error:
            client.close()
            raise Unreachable(f"ssh starts no command: {error}") from None

    def close(self) -> None:
        self._client.close()

    def start(self, payload: bytes) -> int:
        """Give it the payload; the pid of the node service, once it has joined. Raises what hindered it."""
        with contextlib.suppress(OSError):  # it has ended: its exit code says more
            self._channel.sendall(payload)
        try:
            answer = self._answer()
            if answer is not None:
                return pid_in(answer)
            said = self._channel.makefile_stderr("rb").read(MAX_SAID).decode(errors="replace").strip().splitlines()
            raise self._wrong(self._channel.recv_exit_status(), said[-1] if said else "")
        except TimeoutError:
            raise Unreachable(f"the node service did not come up within {START_SECONDS} s") from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Unreachable(f"the ssh connection was lost: {error}") from None

    def _answer(self) -> dict[str, Any] | None:
        """The one line that is ours; shells' greetings are passed over."""
        taken = 0
        for line in self._channel.makefile("rb"):
            taken += len(line)
            if line.startswith(b"{") and line.endswith(b"\n"):
                answer: dict[str, Any] = json.loads(line)
                return answer
            if taken > MAX_ANSWER:
                break
        return None

    def _wrong(self, code: int, said: str) -> StageError:
        install = "install it there, or give --python"
        if code == NO_PYTHON:
            return UsageError(f"there is no {self._python}, and no `stage` on the PATH", install)
        if code == OLD_PYTHON:
            return UsageError(f"{self._python} is older than Python 3.11", "install a newer one, or give --python")
        if code == NO_LONGSHORE:
            return UsageError(f"no longshore under {self._python}", install)
        if code < 0:
            return Unreachable("the ssh connection was lost")
        return StageError(f"longshore does not start there (exit code {code}): {said or 'it left no word'}", install)
