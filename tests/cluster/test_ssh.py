"""What ssh's own configuration says of a host. Connections are tested end to end, on hosts with an sshd."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cluster.ssh import Dialer, configured, hop
from staging.mover.errors import TemporaryError, UsageError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name in ("key", "extra key"):
        (tmp_path / name).write_text("")
    (tmp_path / "more").write_text("Host alias\n HostName 127.0.0.9\n Port 2200\n")
    file = tmp_path / "config"
    file.write_text(
        f"""
        Include {tmp_path}/more
        Host alias
          User worker
          IdentityFile {tmp_path}/key
          IdentityFile "{tmp_path}/extra key"
          IdentityFile {tmp_path}/absent
          UserKnownHostsFile {tmp_path}/known {tmp_path}/known2
          GlobalKnownHostsFile none
          ProxyCommand nc -x %r %h %p 100%%
        Host far
          ProxyJump one,me@two:2222
          HostKeyAlias other
          IdentityAgent none
          AddressFamily inet6
        """
    )
    return file


def test_a_host_as_it_is_configured(config: Path, tmp_path: Path) -> None:
    found = configured("alias", file=str(config))
    assert (found.host, found.port, found.user) == ("127.0.0.9", 2200, "worker")
    assert found.keys == (f"{tmp_path}/key", f"{tmp_path}/extra key")
    assert found.known_hosts[:2] == (f"{tmp_path}/known", f"{tmp_path}/known2")
    assert found.known_name == "[127.0.0.9]:2200"
    assert found.command == "nc -x worker 127.0.0.9 2200 100%"
    assert (found.jump, found.agent, found.family) == ("", True, socket.AF_UNSPEC)
    assert configured("alias", "me", str(config)).user == "me"


def test_a_host_behind_others(config: Path) -> None:
    found = configured("far", file=str(config))
    assert (found.jump, found.command, found.known_name) == ("one,me@two:2222", "", "other")
    assert (found.agent, found.family) == (False, socket.AF_INET6)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("host", ("", "host", "")),
        ("me@host:22", ("me", "host", "22")),
        ("[fd00::1]:22", ("", "fd00::1", "22")),
        ("[fd00::1]", ("", "fd00::1", "")),
        ("fd00::1", ("", "fd00::1", "")),
        ("ssh://me@host:22", ("me", "host", "22")),
    ],
)
def test_a_hop_on_the_way(word: str, expected: tuple[str, str, str]) -> None:
    assert hop(word) == expected


def test_a_configuration_that_ssh_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ssh's configuration cannot be used: .*none"):
        configured("host", file=str(tmp_path / "none"))


def test_nothing_is_dialled_after_the_end() -> None:
    dialer = Dialer()
    dialer.close()
    with pytest.raises(TemporaryError, match="given up"):
        dialer.connect(configured("127.0.0.1", file="/dev/null"))
