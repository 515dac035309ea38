"""Reaching a host by ssh as its user would: OpenSSH's own configuration, known hosts, keys and agent; no passwords.

The `ssh` program says what its configuration means for a host (`ssh -G`); paramiko makes the connection. A host whose
key is not known is refused.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import re
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paramiko

from cluster.addresses import notice_loss
from staging.mover.errors import RefusedError, StageError, TemporaryError, Unreachable, UsageError

CONNECT_SECONDS = 10.0
_CONFIG_SECONDS = 10
_NO_KEYS = "No authentication methods available"  # paramiko's words for it, which have no class
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what fails is told by us, in a line


@dataclass(frozen=True)
class Config:
    """What ssh's configuration says of one host."""

    host: str
    port: int
    user: str
    keys: tuple[str, ...]
    known_hosts: tuple[str, ...]
    known_as: str
    jump: str
    command: str
    agent: bool
    family: socket.AddressFamily = socket.AF_UNSPEC

    @property
    def known_name(self) -> str:
        """Under which the host is in known_hosts."""
        name = self.known_as or self.host
        return name if self.port == paramiko.config.SSH_PORT or self.known_as else f"[{name}]:{self.port}"


def configured(target: str, user: str = "", file: str = "", port: str = "") -> Config:
    """What `ssh` would do for `target`, by its default configuration or by `file`. Raises UsageError."""
    argv = ["ssh", "-G", "-T"]
    argv += ["-F", file] if file else []
    argv += ["-l", user] if user else []
    argv += ["-p", port] if port else []
    try:
        done = subprocess.run(
            [*argv, "--", target], capture_output=True, text=True, timeout=_CONFIG_SECONDS, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise UsageError("there is no `ssh` program here, which reads its configuration", "install it") from None
    except subprocess.TimeoutExpired:
        raise TemporaryError("`ssh -G` does not end", "look at `Match exec` in ssh's configuration") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no word of why"]
        raise UsageError(f"ssh's configuration cannot be used: {said[-1]}")
    return _config(done.stdout)


def _config(text: str) -> Config:
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        word, _, value = line.partition(" ")
        said.setdefault(word, []).append(value)

    def one(word: str) -> str:
        value = said.get(word, [""])[0]
        return "" if value == "none" else value

    known = shlex.split(one("userknownhostsfile")) + shlex.split(one("globalknownhostsfile"))
    keys = [str(Path(_plain(key)).expanduser()) for key in said.get("identityfile", [])]
    return Config(
        host=one("hostname"),
        port=int(one("port")),
        user=one("user"),
        keys=tuple(key for key in keys if Path(key).is_file()),
        known_hosts=tuple(str(Path(file).expanduser()) for file in known),
        known_as=one("hostkeyalias"),
        jump=one("proxyjump"),
        command=_expand(one("proxycommand"), {"h": one("hostname"), "p": one("port"), "r": one("user")}),
        agent=said.get("identityagent", [""])[0] != "none",
        family=_FAMILIES.get(one("addressfamily"), socket.AF_UNSPEC),
    )


def _expand(command: str, tokens: dict[str, str]) -> str:
    """The %-tokens of a ProxyCommand, which `ssh -G` leaves as they are."""
    return re.sub("%(.)", lambda found: "%" if found[1] == "%" else tokens.get(found[1], found[0]), command)


def _plain(value: str) -> str:
    return value.strip('"')


class _Unknown(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    def __init__(self, config: Config) -> None:
        self._config = config

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        file = self._config.known_hosts[0] if self._config.known_hosts else "known_hosts"
        raise RefusedError(
            f"its host key is not known ({key.get_name()} {key.fingerprint})",
            f"compare it, then add {hostname} to {file} (ssh-keyscan, or log in once by ssh)",
        )


class Dialer:
    """Makes connections; owner of all of them, and of what is known of host keys. Safe to use from any thread."""

    def __init__(self, seconds: float = CONNECT_SECONDS, file: str = "") -> None:
        self._seconds = seconds
        self.file = file
        self._lock = threading.Lock()
        self._known: dict[str, paramiko.HostKeys] = {}
        self._open: list[paramiko.SSHClient] = []
        self._closed = False
        self._jumps: dict[str, tuple[threading.Lock, list[paramiko.SSHClient]]] = {}

    def close(self) -> None:
        """End all connections, also those that are being made."""
        with self._lock:
            self._closed = True
            clients, self._open = self._open, []
        for client in reversed(clients):
            client.close()

    def connect(self, config: Config, address: str = "") -> paramiko.SSHClient:
        """A connection to the host, at `address` where it is known. Raises Unreachable, RefusedError and others."""
        deadline = time.monotonic() + self._seconds
        client = paramiko.SSHClient()
        with self._lock:
            if self._closed:
                raise TemporaryError("given up")
            self._open.append(client)
        try:
            self._login(client, config, address, deadline)
        except BaseException:
            client.close()
            raise
        return client

    def _login(self, client: paramiko.SSHClient, config: Config, address: str, deadline: float) -> None:
        client.set_missing_host_key_policy(_Unknown(config))
        known = self._host_keys(config.known_hosts).lookup(config.known_name)
        for kind in known or ():
            client.get_host_keys().add(config.known_name, kind, known[kind])
        where = f"{config.host} port {config.port}"
        try:
            sock = self._socket(config, address or config.host, deadline)
            left = max(1.0, deadline - time.monotonic())
            client.connect(
                config.known_as or config.host,
                config.port,
                config.user or getpass.getuser(),
                key_filename=list(config.keys),
                allow_agent=config.agent,
                look_for_keys=False,
                sock=sock,
                timeout=left,
                banner_timeout=left,
                auth_timeout=left,
                channel_timeout=left,
            )
        except paramiko.BadHostKeyException as error:
            raise RefusedError(
                f"its host key has changed ({error.key.get_name()} {error.key.fingerprint})",
                f"find out why, then mend {' or '.join(config.known_hosts)}",
            ) from None
        except (paramiko.SSHException, EOFError) as error:
            said = str(error) or "the connection was closed"
            if isinstance(error, paramiko.AuthenticationException) or said == _NO_KEYS:
                remedy = f"try `ssh {config.user}@{config.host}`, or load the agent"
                raise RefusedError(f"ssh does not let {config.user} in by key", remedy) from None
            raise Unreachable(f"ssh to {where} failed: {said}", "is sshd well there?") from None
        except TimeoutError:
            raise Unreachable(f"no answer from {where} within {self._seconds:g} s", "is the host up?") from None
        except OSError as error:
            raise Unreachable(f"cannot reach {where}: {error.strerror or error}", "are host and sshd up?") from None

    def _socket(self, config: Config, address: str, deadline: float) -> Any:
        if config.command:
            return paramiko.ProxyCommand(config.command)
        left = max(0.1, deadline - time.monotonic())
        if not config.jump:
            sock = socket.create_connection((address, config.port), left)
            notice_loss(sock)
            return sock
        *before, last = config.jump.split(",")
        transport = self._jump(",".join(before), last).get_transport()
        if transport is None:
            raise Unreachable(f"the connection to {last} was lost")
        return transport.open_channel("direct-tcpip", (config.host, config.port), ("127.0.0.1", 0), timeout=left)

    def _jump(self, before: str, last: str) -> paramiko.SSHClient:
        """The one connection to a host that others are reached by."""
        with self._lock:
            lock, made = self._jumps.setdefault(f"{before},{last}", (threading.Lock(), []))
        with lock:
            if not made:
                try:
                    made.append(self.connect(_jump_config(before, last, self.file)))
                except StageError as error:
                    raise type(error)(f"by way of {last}: {error.message}", error.remedy) from None
            return made[0]

    def _host_keys(self, files: Sequence[str]) -> paramiko.HostKeys:
        with self._lock:
            keys = self._known.get("\0".join(files))
            if keys is None:
                keys = self._known["\0".join(files)] = paramiko.HostKeys()
                for file in files:
                    with contextlib.suppress(FileNotFoundError, PermissionError):
                        keys.load(file)
            return keys


def _jump_config(before: str, last: str, file: str) -> Config:
    """What ssh's configuration says of the last hop; the ones before lead to it."""
    user, host, port = hop(last)
    config = configured(host, user, file, port)
    return replace(config, jump=before or config.jump)


def hop(word: str) -> tuple[str, str, str]:
    """User, host and port of a word of ProxyJump: [ssh://][user@]host[:port], an IPv6 address with a port in []."""
    user, _, place = word.removeprefix("ssh://").rpartition("@")
    found = re.fullmatch(r"\[(.*)\](?::(\d+))?|([^:]*):(\d+)", place)
    if found is None:
        return user, place, ""
    return user, found[1] or found[3], found[2] or found[4] or ""
