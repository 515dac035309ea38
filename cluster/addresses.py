"""Addresses of hosts, and connections to them."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Iterable

from staging.mover.errors import TemporaryError, Unreachable

LOSS_SECONDS = 15


def resolve(name: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> str:
    """The address behind a host's name, the first to which there is a way. Raises Unreachable."""
    try:
        found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host's name"
        raise Unreachable(f"{name} cannot be resolved: {reason}", "give its address as NAME=ADDRESS") from None
    addresses = [str(entry[4][0]) for entry in found]
    return next((address for address in addresses if own_address(address)), addresses[0])


def own_address(far: str) -> str:
    """This host's own address on the way to another; "" where there is no way."""
    with socket.socket(socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((far, 9))  # sends nothing
        except OSError:
            return ""
        return str(sock.getsockname()[0])


def towards(addresses: Iterable[str]) -> str:
    """This host's own address on the way to most of those, rather one that others can reach. Raises TemporaryError."""
    found = Counter(own for address in addresses if (own := own_address(address)))
    if not found:
        raise TemporaryError("there is no way to any of the hosts", "give --address")
    return max(found, key=lambda own: (not is_loopback(own), found[own]))


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def notice_loss(sock: socket.socket) -> None:
    """Have an idle TCP connection fail once the other host has been silent for LOSS_SECONDS."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, LOSS_SECONDS // 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, LOSS_SECONDS // 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOSS_SECONDS * 1000)
