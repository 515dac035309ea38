"""This host's and others' addresses."""

from __future__ import annotations

import socket

import pytest

from cluster.addresses import is_loopback, own_address, resolve, towards
from staging.mover.errors import TemporaryError, Unreachable


def test_names_and_literals_are_resolved() -> None:
    assert is_loopback(resolve("localhost", socket.AF_INET))
    assert resolve("127.0.0.9") == "127.0.0.9"
    assert resolve("::1") == "::1"


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 300, "", "not a name"])
def test_a_name_that_is_nobodys(name: str) -> None:
    with pytest.raises(Unreachable, match="NAME=ADDRESS"):
        resolve(name)


def test_the_own_address_on_the_way_to_another() -> None:
    assert own_address("127.0.0.9") == "127.0.0.1"
    assert own_address("fe80::1") == ""  # no link is named
    assert towards(["fe80::1", "127.0.0.9", "127.0.0.8"]) == "127.0.0.1"
    with pytest.raises(TemporaryError, match="--address"):
        towards(["fe80::1"])
