"""What a head tells a host that is to become a node, whichever way it reaches it, and what it hears."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from cluster.credentials import Authority
from cluster.hosts import Host
from cluster.layout import HeadInfo, Layout
from cluster.startup import NodeSpec, versions
from staging.mover.errors import from_wire

MAX_ANSWER = 1 << 20


class Session(Protocol):
    """A host that is reached, and waits to be told."""

    def start(self, payload: bytes) -> int:
        """Give it a `Kit`'s payload; the pid of its node service, once that has joined. Raises what hindered it."""

    def close(self) -> None:
        """Leave it; a start that is under way is undone."""


class Place(Protocol):
    """Where a host is: the address at which it is reached."""

    @property
    def address(self) -> str: ...

    def open(self) -> Session:
        """Reach it. Raises Unreachable, RefusedError and others."""


class Way(Protocol):
    """How hosts are reached: by ssh (cluster.remote), or by a socket that waits there (cluster.dial)."""

    def find(self, host: Host) -> Place:
        """Look the host up. Raises Unreachable, UsageError."""

    def close(self) -> None:
        """End all sessions, also those that are being opened."""


@dataclass(frozen=True)
class Kit:
    """What every node of a cluster is given: how to reach the head, and the keys that make it a member."""

    head: HeadInfo
    keys: dict[str, str] = field(repr=False)

    @classmethod
    def read(cls, layout: Layout, head: HeadInfo) -> Kit:
        names = ("ca.pem", "cert.pem", "key.pem", Authority.public_key_path(layout.keys).name)
        return cls(head, {name: (layout.keys / name).read_text() for name in names})

    def payload(self, spec: NodeSpec, directory: str) -> bytes:
        """The line that `cluster.bootstrap` reads; it holds secrets."""
        told = {
            "versions": versions(),
            "time": time.time(),
            "parent": directory,
            "node": asdict(spec),
            "head": asdict(self.head),
            "keys": self.keys,
        }
        return json.dumps(told).encode("ascii") + b"\n"


def pid_in(answer: dict[str, Any]) -> int:
    """What a host's answer says; raises the error in it."""
    if "error" in answer:
        raise from_wire(answer["error"])
    return int(answer["up"])
