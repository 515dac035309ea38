"""The orders that open a mover, and the digest by which a credential binds a mover to its order."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from staging.mover.order import order_digest

ORDER_VARIABLE = "STAGE_ORDER"


@dataclass(frozen=True)
class Membership:
    """What makes a process a member of one transfer: its id and its key. The key never shows in a repr."""

    transfer: str = field(default_factory=lambda: secrets.token_hex(16))
    key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)


@dataclass(frozen=True)
class SourceOrder:
    """Publish `sources` (paths; on an embedded node beneath its root). `rate`: bytes/s to send at most, 0 no limit."""

    sources: tuple[str, ...]
    contents: bool = False
    block: int = 0
    nodes: int = 1
    rate: int = 0

    def to_order(self) -> dict[str, Any]:
        return {
            "op": "open",
            "role": "source",
            "sources": list(self.sources),
            "contents": self.contents,
            "block": self.block,
            "nodes": self.nodes,
            "rate": self.rate,
        }


@dataclass(frozen=True)
class SinkOrder:
    """Receive what `manifest` (the source's summary) announces into `dest`.

    `checksum`: compare what is there by its bytes, also where its size and time are the source's. `rate`: bytes/s to
    send on at most, 0 no limit.
    """

    dest: str
    manifest: Mapping[str, Any]
    into: str = "auto"
    parents: bool = False
    preserve: bool = True
    checksum: bool = True
    rate: int = 0

    def to_order(self) -> dict[str, Any]:
        return {
            "op": "open",
            "role": "sink",
            "dest": self.dest,
            "into": self.into,
            "parents": self.parents,
            "preserve": self.preserve,
            "checksum": self.checksum,
            "rate": self.rate,
            "manifest": dict(self.manifest),
        }


def mover_environment(order: Mapping[str, Any]) -> dict[str, str]:
    """The whole environment of a launched mover; it refuses any other opening order than this one."""
    return {ORDER_VARIABLE: order_digest(order)}


def complete(order: Mapping[str, Any], membership: Membership, host: str, root: str) -> dict[str, Any]:
    """The order as it is written to the mover: with its membership and the node's own address and root."""
    return {**order, "transfer": membership.transfer, "key": membership.key, "host": host, "root": root}


def feeds_order(stripes: int, feeds: Sequence[Mapping[str, Any]], source: Sequence[Any]) -> dict[str, Any]:
    return {"op": "run", "stripes": stripes, "feeds": list(feeds), "source": list(source)}
