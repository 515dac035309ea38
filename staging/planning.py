"""What is decided before a copy to many nodes begins, and how `pcp --plan` shows it.

The links' rate is what the user says. It is not measured: an earlier transfer's rate would have to be kept for every
pair of hosts. Where nobody says it, what is taken is least wrong for links from 100 Mbit/s to 10 Gbit/s.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import platform
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from cluster.console import SCHEMA
from cluster.nodes import fold
from staging.mover.errors import UsageError
from staging.mover.manifest import choose_block as mover_block
from staging.mover.scan import scan
from staging.plan.best import best
from staging.plan.cost import DEFAULT_LINK, Link, choose_unknown
from staging.plan.draw import render
from staging.plan.topology import MAX_TEXT, Topology, parse
from staging.plan.tree import Shape, TreePlan
from staging.units import human_bytes, human_rate, human_seconds, printable

SOURCE = "source"  # what a plan calls the host that sends
# hosts that are this machine: nothing but its cores is slow
LOCAL_LINK = Link(rate=4e9, latency=20e-6, block_cpu=150e-6, cpu_rate=7e8)

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:bit/s|bit)?", re.IGNORECASE)


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--plan, --topology and --link, as `plan_only`, `topology` and `link`."""
    options = (
        click.option("--plan", "plan_only", is_flag=True, help="Draw the tree and the predicted time, send nothing."),
        click.option("--topology", metavar="FILE", help="Slurm's topology.conf: each switch is entered once."),
        click.option("--link", metavar="RATE", help="What a node's link carries, for planning: 10G, 200M (bit/s)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def parse_link(text: str | None) -> float:
    """A link's rate in bytes/s, written in bit/s with decimal units; None is 0, the default. UsageError otherwise.

    >>> parse_link("10G"), parse_link("200Mbit/s"), parse_link(None)
    (1250000000.0, 25000000.0, 0.0)
    """
    if text is None:
        return 0.0
    match = _RATE.fullmatch(text.strip())
    rate = float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ") / 8 if match and len(text) < 30 else 0.0
    if not rate:
        raise UsageError(f"{printable(text)!r} is not the rate of a link", "write bits per second, as 10G or 200M")
    return rate


def read_topology(path: str | None) -> str:
    """The text of a topology file, once it has been found right; "" for none."""
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_TEXT + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"cannot read {printable(path)}: {reason}", "name a file such as topology.conf") from None
    parse(text, printable(path))
    return text


def link_of(host: str, rate: float = 0) -> Link:
    """The links of a cluster that reaches this host at `host`; loopback means that all of it is this machine."""
    link = DEFAULT_LINK
    with contextlib.suppress(ValueError):  # a name
        if ipaddress.ip_address(host).is_loopback:
            link = replace(LOCAL_LINK, cores=len(os.sched_getaffinity(0)))
    return replace(link, rate=rate) if rate else link


def host_name() -> str:
    """This host as a topology file names it."""
    return platform.node().partition(".")[0]


def decide(
    sources: Sequence[str], nodes: Sequence[str], shape: str, block: int, link: Link, topology: str
) -> tuple[str, int]:
    """Shape and block size of a copy, chosen together; what the user gave is kept. topology: a file's text.

    Where the sources are more than regular files their size is known only after the mover's scan. Then both stay
    open ("auto", 0): the mover takes a block by its simple rule, and the head the shape that suits it.
    """
    total = _file_bytes(sources)
    if total is None or not nodes:
        return shape, block
    plan, size, _ = plan_for(nodes, total, link, shape, block, parse(topology) if topology else None, host_name())
    return str(plan.shape), size


def plan_for(
    nodes: Sequence[str], total: int, link: Link, shape: str, block: int, topology: Topology | None, host: str
) -> tuple[TreePlan, int, float]:
    """Plan, block size, predicted seconds. shape: "auto" or a word of `Shape.parse`. block: bytes, 0 for the best."""
    asked = None if shape == "auto" else Shape.parse(shape)
    if link == DEFAULT_LINK and nodes:  # nobody said what the links carry
        asked, block = choose_unknown(len(nodes), total, link, block or None, asked)
    return best(SOURCE, nodes, total, link, asked, block or None, topology, host)


def _file_bytes(sources: Sequence[str]) -> int | None:
    total = 0
    for source in sources:
        try:
            info = os.stat(source)
        except OSError:
            return None  # the mover says what is wrong with it
        if not stat.S_ISREG(info.st_mode):
            return None
        total += info.st_size  # holes included: what is allocated may be known only later
    return total


@dataclass(frozen=True)
class Preview:
    """A copy that is not made: its plan, and what the model says of it."""

    plan: TreePlan
    total: int
    block: int
    seconds: float  # until the last node has all of it, from when all have begun
    link: Link
    topology: Topology | None

    @classmethod
    def of(
        cls,
        sources: Sequence[str],
        contents: bool,
        nodes: Sequence[str],
        shape: str,
        block: int,
        link: Link,
        topology: str = "",
    ) -> Preview:
        """The arguments are those of a `Push`; the sources are read, as far as a scan does. topology: a file's text."""
        total = sum(length for entry in scan([*sources], contents).entries for _, length in entry.data())
        shape, block = decide(sources, nodes, shape, block, link, topology)
        switches = parse(topology) if topology else None
        block = block or mover_block(total, len(nodes))
        plan, block, seconds = plan_for(nodes, total, link, shape, block, switches, host_name())
        return cls(plan, total, block, seconds, link, switches)

    def facts(self) -> dict[str, Any]:
        """The `plan` event of docs/events.md."""
        plan, nodes = self.plan, [*self.plan.feeds]
        return {
            "type": "plan",
            "shape": str(plan.shape),
            "stripes": plan.stripes,
            "depth": plan.depth(),
            "block": self.block,
            "bytes": self.total,
            "seconds": self.seconds,
            "line": self.total / self.link.rate,
            "rate": self.link.rate,
            "nodes": nodes,
            "unlisted": self.topology.unlisted(nodes) if self.topology else [],
            "parents": [
                {name: feeds[stripe].peers[0] for name, feeds in plan.feeds.items()} for stripe in range(plan.stripes)
            ],
        }

    def show(self, as_json: bool) -> str:
        """All of it for people, or as one line of JSON."""
        facts = self.facts()
        if as_json:
            return json.dumps({"type": "plan", "schema": SCHEMA, "time": time.time(), **facts})
        link, limit = self.link, "links" if not self.link.cores else f"this machine's {self.link.cores:g} cores, links"
        lines = [
            render(self.plan),
            f"{human_bytes(self.total)} to each in blocks of {human_bytes(self.block)}: about "
            f"{human_seconds(facts['seconds'])} once all have begun ({limit} of {human_rate(link.rate, 1)}, "
            f"line {human_seconds(facts['line'])})",
        ]
        if self.topology:
            lines.append(f"each switch is entered once{' per stripe' if self.plan.stripes > 1 else ''}")
        if facts["unlisted"]:
            lines.append(unlisted_note(facts["unlisted"]))
        return "\n".join(lines)


def unlisted_note(names: Sequence[str]) -> str:
    """What is said of nodes that the topology leaves out."""
    return f"not in the topology, so taken as below one switch of their own: {fold(names)}"
