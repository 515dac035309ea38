"""What a host's own /etc holds. Pure: file names below /etc to (mode, text)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.hosts.network import Place

Files = dict[str, tuple[int, str]]
UIDS = {"alice": 6001, "bob": 6002}

SSHD_CONFIG = """\
ListenAddress 0.0.0.0
ListenAddress ::
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile .ssh/authorized_keys
PidFile /run/sshd.pid
MaxStartups 200
UseDNS no
Subsystem sftp internal-sftp
"""

SSH_CONFIG = """\
Host *
  BatchMode yes
  StrictHostKeyChecking yes
  GlobalKnownHostsFile /etc/ssh/ssh_known_hosts
  IdentityFile ~/.ssh/id_ed25519
"""


@dataclass(frozen=True)
class Keys:
    """OpenSSH key pairs of one cluster, private and public: one for all its hosts, one for each user."""

    host: tuple[str, str]
    users: dict[str, tuple[str, str]]


def make_keys(users: Iterable[str]) -> Keys:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    def pair() -> tuple[str, str]:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return private.decode(), public.decode() + "\n"

    return Keys(pair(), {user: pair() for user in ("root", *users)})


def hosts_file(places: Iterable[Place]) -> str:
    """Every name with the addresses of its first network; `n1-1` and so on name the others."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for place in places:
        for nic, (address, address6) in enumerate(zip(place.addresses, place.addresses6, strict=True)):
            name = place.name if nic == 0 else f"{place.name}-{nic}"
            lines += [f"{address} {name}", f"{address6} {name}"]
    return "\n".join(lines) + "\n"


def user_files(passwd: str, group: str, users: Mapping[str, int]) -> Files:
    """The machine's users and these; nobody has a password, nobody's account is locked."""
    ids = {str(uid) for uid in users.values()}
    people = [line for line in passwd.splitlines() if line.count(":") == 6 and not _taken(line, users, ids)]
    groups = [line for line in group.splitlines() if line.count(":") == 3 and not _taken(line, users, ids)]
    people = [_with_home(line, "/root") if line.startswith("root:") else line for line in people]
    people += [f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh" for name, uid in users.items()]
    groups += [f"{name}:x:{uid}:" for name, uid in users.items()]
    shadow = [f"{line.split(':')[0]}:*:19000:0:99999:7:::" for line in people]
    return {
        "passwd": (0o644, "\n".join(people) + "\n"),
        "group": (0o644, "\n".join(groups) + "\n"),
        "shadow": (0o600, "\n".join(shadow) + "\n"),
        "nsswitch.conf": (0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"),
    }


def _taken(line: str, users: Mapping[str, int], ids: set[str]) -> bool:
    words = line.split(":")
    return words[0] in users or words[2] in ids


def _with_home(line: str, home: str) -> str:
    words = line.split(":")
    return ":".join([*words[:5], home, "/bin/sh" if words[6].endswith(("nologin", "false")) else words[6]])


def ssh_files(keys: Keys, places: Iterable[Place]) -> Files:
    """A server that takes keys only, and clients that know all hosts."""
    names = ",".join(
        name
        for place in places
        for nic in range(place.nics)
        for name in (place.name if nic == 0 else f"{place.name}-{nic}", place.addresses[nic], place.addresses6[nic])
    )
    return {
        "ssh/ssh_host_ed25519_key": (0o600, keys.host[0]),
        "ssh/ssh_host_ed25519_key.pub": (0o644, keys.host[1]),
        "ssh/sshd_config": (0o644, SSHD_CONFIG),
        "ssh/ssh_config": (0o644, SSH_CONFIG),
        "ssh/ssh_known_hosts": (0o644, f"{names} {keys.host[1]}"),
    }


def home_files(keys: Keys, user: str) -> Files:
    """What a user's home holds to log in with, and to be logged in to: from the same user, and from root."""
    private, public = keys.users[user]
    return {
        ".ssh/id_ed25519": (0o600, private),
        ".ssh/id_ed25519.pub": (0o644, public),
        ".ssh/authorized_keys": (0o600, "".join(sorted({public, keys.users["root"][1]}))),
    }
