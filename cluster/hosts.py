"""Which hosts a cluster is made of: `stage up --hosts` takes a node set, or a file that lists them.

n[1-4]                  hosts by the names that ssh knows; they are the nodes' names too
admin@n[1-4]            ... logged in to as another user
n1=10.0.0.1             a node's name, and the name or address to give to ssh
n[1-4]=10.0.0.[1-4]
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster import nodes
from staging.mover.errors import SourceError, UsageError, from_os_error

MAX_HOSTS = 4096
_EXAMPLE = "write a node set, or NAME=ADDRESS"


@dataclass(frozen=True)
class Host:
    """A node's name, what ssh calls its host, and the user to log in as ("" for what ssh's configuration says)."""

    name: str
    target: str
    user: str = ""


def find(spec: str) -> tuple[Host, ...]:
    """The hosts in the file `spec`, or in the node set `spec` where there is no such file. Raises UsageError."""
    path = Path(spec)
    if path.is_file():
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            raise from_os_error(error, f"read {spec}", source=True) from error
        except UnicodeDecodeError:
            raise UsageError(f"{spec} is not a text file", _EXAMPLE) from None
        return parse(lines, str(path))
    if os.sep in spec:
        raise SourceError(f"there is no file {spec}")
    return parse([spec])


def parse(lines: Iterable[str], source: str = "") -> tuple[Host, ...]:
    """The hosts of these lines, in their order; `source` names the file in errors. Raises UsageError."""
    found: dict[str, Host] = {}
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].strip()
        if not words:
            continue
        try:
            for host in _hosts(words):
                if host.name in found:
                    raise UsageError(f"{host.name} is named twice", "name each node once")
                found[host.name] = host
        except UsageError as error:
            if not source:
                raise
            raise UsageError(f"{source}, line {number}: {error.message}", error.remedy) from None
    if not found:
        raise UsageError(f"{source or 'the node set'} names no host", _EXAMPLE)
    if len(found) > MAX_HOSTS:
        raise UsageError(f"{source or 'the node set'} names {len(found)} hosts, the limit is {MAX_HOSTS}", "name fewer")
    return tuple(found.values())


def _hosts(words: str) -> list[Host]:
    left, equals, right = (part.strip() for part in words.partition("="))
    user, at, targets = (right if equals else left).rpartition("@")
    if at and not user.strip() and not equals:
        user, targets = "", f"@{targets}"  # a node group
    names = nodes.parse(left if equals else targets)
    if not targets:
        raise UsageError(f"{words!r} gives no address", _EXAMPLE)
    addresses = names
    if equals:  # one address is taken as it is: IPv6 is no node set
        addresses = (targets,) if len(names) == 1 else nodes.parse(targets)
    if len(addresses) != len(names):
        raise UsageError(f"{words!r} has {len(names)} names and {len(addresses)} addresses", _EXAMPLE)
    if user.startswith("-") or any(address.startswith("-") or " " in address for address in addresses):
        raise UsageError(f"{words!r} is not a host", _EXAMPLE)
    return [Host(name, address, user) for name, address in zip(names, addresses, strict=True)]
