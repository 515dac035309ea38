"""The owner's side of the keeper: start and end it, have it fork hosts, run network tools in the switch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.hosts import enter
from tests.hosts.host import SYSTEM_PATH, Host
from tests.hosts.network import HostsError

ROOT = Path(__file__).resolve().parents[2]
STEP_SECONDS = 30.0
LARGEST = 1 << 20


class Talk:
    """The owner's end of the socket to a process that the keeper forked."""

    def __init__(self, name: str, end: socket.socket) -> None:
        self._name = name
        self._socket = end
        self._socket.settimeout(STEP_SECONDS)

    def hear(self, what: str) -> Any:
        """The next word of the process, which must be `what`."""
        message = json.loads(self._socket.recv(LARGEST) or b'{"error": "it ended without a word"}')
        if what not in message:
            trouble = f"{message.get('error')}\n{message.get('trace', '')}".rstrip()
            raise HostsError(f"{self._name} does not start: {trouble}")
        return message[what]

    def say(self, message: Mapping[str, Any]) -> None:
        self._socket.send(json.dumps(message).encode())

    def close(self) -> None:
        _hang_up(self._socket)


class Switch:
    """The keeper process, and the network namespace that it holds."""

    def __init__(self) -> None:
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._control: socket.socket | None = None

    def start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(STEP_SECONDS)
        userns = "0" if os.geteuid() == 0 else "1"
        with theirs:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.hosts.keeper", str(theirs.fileno()), str(os.getpid()), userns],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a ^C is for the owner, which then ends it
            )
        self._pidfd = os.pidfd_open(self._keeper.pid)
        if not self._control.recv(LARGEST):
            raise HostsError("the kernel refuses namespaces: be root, or allow user namespaces to your user")

    def stop(self) -> None:
        """End the keeper and what is left of its children."""
        if self._control is not None:
            _hang_up(self._control)
            self._control = None
        if self._keeper is not None:
            self._keeper.wait(STEP_SECONDS)
            os.close(self._pidfd)
            self._keeper = None

    def fork(self, name: str, spec: Mapping[str, Any]) -> Talk:
        """Have the keeper fork what `spec` describes: a host's init, or a forwarder."""
        if self._control is None:
            raise HostsError("the cluster is not up")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as stack:
            stack.enter_context(ours)
            socket.send_fds(self._control, [json.dumps(spec).encode()], [theirs.fileno()])
            stack.pop_all()
        return Talk(name, ours)

    def batch(self, command: str, lines: Iterable[str], host: Host | None = None) -> None:
        """Have `ip` or `tc` carry out lines in the switch's network, or a host's."""
        text = "".join(f"{line}\n" for line in lines)
        if text:
            self._run([command, "-batch", "-"], text, host)

    def filter(self, text: str) -> None:
        """Have `nft` change the switch's rules, all at once."""
        if text:
            self._run(["nft", "-f", "-"], text, None)

    def _run(self, argv: list[str], text: str, host: Host | None) -> None:
        if self._keeper is None:
            raise HostsError("the cluster is not up")
        pid, pidfd = (self._keeper.pid, self._pidfd) if host is None else host.process()
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with enter.popen(pid, pidfd, enter.NETWORK, argv, text=True, env=_environment(), **options) as process:
            out, _ = process.communicate(text)
        if process.returncode != 0:
            raise HostsError(f"{' '.join(argv)}: {out.strip()}\n{text}")


def _hang_up(end: socket.socket) -> None:
    """Close it for the other side even where a process forked from this one still has it open."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"}
