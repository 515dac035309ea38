"""The daemons of a host: what its init starts, and how to see that they are there."""

from __future__ import annotations

import pwd
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, field

from tests.hosts.etc import Files
from tests.hosts.host import SYSTEM_PATH, Host
from tests.hosts.network import HostsError

SSH_PORT = 22
MUNGE_SOCKET = "/run/munge/munge.socket.2"
SECONDS = 30.0


@dataclass(frozen=True)
class Service:
    """A daemon that stays in the foreground. `directories` and `files` (by whole path) are its user's."""

    name: str
    argv: list[str]
    uid: int = 0
    gid: int = 0
    directories: list[str] = field(default_factory=list)
    files: Files = field(default_factory=dict)

    def spec(self) -> dict[str, object]:
        return asdict(self)


def sshd() -> Service:
    return Service("sshd", [_program("sshd"), "-D", "-e"], directories=["/run/sshd"])


def munged() -> Service:
    """munged refuses to be root; the key is the same on all hosts of the cluster for which this is called once."""
    user = pwd.getpwnam("munge")
    argv = [_program("munged"), "--foreground", "--key-file=/etc/munge/munge.key"]
    argv += [f"--{what}-file=/run/munge/munged.{what}" for what in ("log", "pid", "seed")]
    key: Files = {"/etc/munge/munge.key": (0o400, secrets.token_hex(64))}
    return Service("munged", argv, user.pw_uid, user.pw_gid, ["/run/munge", "/etc/munge"], key)


def wait_until_ready(host: Host, services: list[Service]) -> None:
    """Wait until the services of a host accept connections."""
    deadline = time.monotonic() + SECONDS
    for service in services:
        while not _ready(host, service.name):
            if time.monotonic() > deadline:
                log = host.path(f"/run/{service.name}.log").read_text()
                raise HostsError(f"{service.name} on {host.name} is not ready after {SECONDS:.0f} s:\n{log}")
            time.sleep(0.002)


def _ready(host: Host, name: str) -> bool:
    return host.listens(SSH_PORT) if name == "sshd" else host.path(MUNGE_SOCKET).exists()


def _program(name: str) -> str:
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise HostsError(f"{name} is not installed")
    return found
