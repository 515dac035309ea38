"""How long a broadcast should take, and which shape and block size make it shortest. Pure.

The model counts rounds. In one round an interior node takes in one block of every stripe and hands out `copies` blocks:

    shape           stripes  copies    depth D, N sinks
    chain              1       1       N
    k-ary tree         1       k       smallest D with k + k^2 + ... + k^D >= N
    k disjoint trees   k       k (+1)  smallest D with 1 + k + ... + k^(D-1) >= N; for the double tree 1 + floor(log2 N)

The `+1` is for the N that k trees do not share out evenly (`tree.py`). With S bytes in blocks of b there are
S / (stripes * b) rounds, at least one. A round keeps an uplink of rate r busy for copies * b / r, and a mover for half
a hop's work w = block_cpu + b / cpu_rate per block in or out, the other half being its peer's:

    wire   = copies * b / r
    work   = (stripes + copies) / 2 * w
    hop    = wire + latency + work           from one node having the block to all its children having it
    period = max(wire, work)                 the mover works while the kernel sends
    time   = (stripes + copies) * setup + D * hop + (rounds - 1) * period

The first term is the connections one mover sets up, the second fills the pipeline, the third drains it. Where all hosts
are one machine with c cores, a round is N * stripes blocks for these to move: period >= N * stripes * w / c, and so
for the connections. Where the uplinks are the limit (period = wire) this comes to, leaving out setup and w,

    chain             S/r     + (N - 1) b/r       + N l
    k-ary tree        k S/r   + (D - 1) k b/r     + D l
    k disjoint trees  S/r     + (D - 1) k b/r     + D l

so a chain pays for its length, a tree k times for every byte, and disjoint trees only k log_k N blocks. The first and,
for k = 2, the last are the linear pipeline and the two-tree bound of Sanders, Speck and Träff, "Two-tree algorithms for
full bandwidth broadcast, reduction and scan", Parallel Computing 35 (2009).

The source counts as a relay: it reads and hashes where the others receive.

Left out: packet headers (r is what a connection carries), disks, slow nodes, uneven sharing of an uplink by its
connections, the hops that a topology adds, and that the last interior nodes of a tree have fewer children. Differences
of a few per cent mean little, so `choose` takes a shape that is simpler and at most MARGIN slower. Prototypes with 16
nodes at 100 Mbit/s and 256 KiB blocks took 1.14 of S/r as a chain, 1.19 as a double tree and 1.27 as four trees, the
start of 17 Python processes included, against 1.03, 1.02 and 1.03 here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from staging.mover.errors import UsageError
from staging.plan.tree import CHAIN, DOUBLE_TREE, Shape

# 64 KiB .. 1 MiB: of larger ones a stream has too few in flight (fetch.IN_FLIGHT_BYTES), 4 MiB took twice as long
BLOCK_SIZES = tuple(1 << exponent for exponent in range(16, 21))
MARGIN = 0.05  # what several connections on a link lose, by the prototypes
# simplest first
SHAPES = (CHAIN, *(Shape("tree", k) for k in (2, 3, 4)), DOUBLE_TREE, *(Shape("trees", k) for k in (3, 4, 5)))


@dataclass(frozen=True)
class Link:
    """What the model knows of the network and the hosts, taken to be alike. The defaults suit a 10 Gbit/s cluster.

    rate: bytes/s of one host's uplink, and of its downlink (full duplex).
    latency: seconds from the last byte of a block leaving a node to its reaching the next.
    block_cpu: seconds of fixed work per block and hop, both ends together; a mover does it under one interpreter lock.
    cpu_rate: bytes/s that a host's mover can receive, check, write and send on; divide it by the movers sharing a CPU.
    setup: seconds to open and authenticate one connection.
    cores: where all hosts are one machine, its cores; 0 where each is a machine of its own.
    """

    rate: float = 1e9
    latency: float = 100e-6
    block_cpu: float = 250e-6
    cpu_rate: float = 2e9
    setup: float = 1e-3
    cores: float = 0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and value >= 0 for value in astuple(self)):
            raise UsageError(f"not a description of a link: {self}", "give finite figures, none below zero")
        if not (self.rate and self.cpu_rate):
            raise UsageError(f"not a description of a link: {self}", "give rates above zero")


DEFAULT_LINK = Link()


def predict(shape: Shape, n_nodes: int, total_bytes: int, block_size: int, link: Link) -> float:
    """Seconds until the last of n_nodes sinks has all of total_bytes. UsageError for impossible numbers."""
    if n_nodes < 1 or total_bytes < 0 or block_size < 1:
        raise UsageError(
            f"cannot plan {total_bytes} bytes in blocks of {block_size} to {n_nodes} nodes",
            "give at least one node and a block size above zero",
        )
    stripes, copies = shape.stripes(n_nodes), shape.copies(n_nodes)
    block = min(block_size, total_bytes)
    rounds = max(1.0, total_bytes / (stripes * block)) if block else 1.0
    hop, period = round_times(copies * block / link.rate, stripes, copies, n_nodes, block, link)
    setup = (stripes + copies) * link.setup
    if link.cores:
        setup = max(setup, n_nodes * stripes * link.setup / link.cores)
    return setup + shape.depth(n_nodes) * hop + (rounds - 1) * period


def round_times(wire: float, stripes: int, copies: int, n_nodes: int, block: int, link: Link) -> tuple[float, float]:
    """The hop and the period of a mover with so many copies to send, whose uplink takes `wire` seconds for a round."""
    effort = link.block_cpu + block / link.cpu_rate
    work = (stripes + copies) / 2 * effort
    shared = n_nodes * stripes * effort / link.cores if link.cores else 0
    return max(wire + work, shared) + link.latency, max(wire, work, shared)


def choose(
    n_nodes: int, total_bytes: int, link: Link = DEFAULT_LINK, block_size: int | None = None
) -> tuple[Shape, int, float]:
    """The simplest of the fastest shapes, its block size in bytes and the seconds predicted.

    A given block_size is kept, otherwise the one that suits best is a power of two from 64 KiB (fill) to 1 MiB (work
    per block).
    """
    sizes = BLOCK_SIZES if block_size is None else (block_size,)
    options = [choose_block(shape, n_nodes, total_bytes, link, sizes) for shape in SHAPES]
    enough = min(seconds for _, seconds in options) * (1 + MARGIN)
    return next((s, block, seconds) for s, (block, seconds) in zip(SHAPES, options, strict=True) if seconds <= enough)


def choose_block(
    shape: Shape, n_nodes: int, total_bytes: int, link: Link = DEFAULT_LINK, sizes: Sequence[int] = BLOCK_SIZES
) -> tuple[int, float]:
    """The block size out of `sizes` that suits a shape best, and the seconds predicted."""
    options = [(size, predict(shape, n_nodes, total_bytes, size, link)) for size in sizes]
    return min(options, key=lambda option: option[1])
