"""How long a broadcast should take, and which shape and block size make it shortest. Pure.

The model counts rounds. In one round an interior node takes in one block of every stripe and hands out `copies` blocks:

    shape         stripes  copies  depth D, N sinks
    chain            1       1     N
    k-ary tree       1       k     smallest D with k + k^2 + ... + k^D >= N
    double tree      2       2     1 + floor(log2 N)

With S bytes in blocks of b there are S / (stripes * b) rounds, at least one. A round keeps an uplink of rate r busy
for copies * b / r, and a mover for half a hop's work w = block_cpu + b / cpu_rate per block in or out, the other
half being its peer's:

    wire   = copies * b / r
    work   = (stripes + copies) / 2 * w
    hop    = wire + latency + work           from one node having the block to all its children having it
    period = max(wire, work)                 the mover works while the kernel sends
    time   = (stripes + copies) * setup + D * hop + (rounds - 1) * period

The first term is the connections one mover sets up, the second fills the pipeline, the third drains it. Where the
uplinks are the limit (period = wire) this comes to, leaving out setup and w,

    chain        S/r     + (N - 1) b/r       + N l
    k-ary tree   k S/r   + (D - 1) k b/r     + D l
    double tree  S/r     + (D - 1) 2 b/r     + D l

so a chain pays for its length, a tree k times for every byte, and the double tree only twice log2 N blocks. The first
and last are the linear pipeline and the two-tree bound of Sanders, Speck and Träff, "Two-tree algorithms for full
bandwidth broadcast, reduction and scan", Parallel Computing 35 (2009).

The source counts as a relay: it reads and hashes where the others receive.

Left out: packet headers (r is what a connection carries), disks, slow nodes, uneven sharing of an uplink by its
connections, and that the last interior nodes of a tree have fewer children. Differences of a few per cent mean
little: prototypes with 16 nodes at 100 Mbit/s and 256 KiB blocks took 1.14 of S/r as a chain and 1.19 as a double
tree, the start of 17 Python processes included, against 1.03 and 1.02 here.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from staging.mover.errors import UsageError
from staging.plan.tree import CHAIN, DOUBLE_TREE, Shape

BLOCK_SIZES = tuple(1 << exponent for exponent in range(16, 23))  # 64 KiB .. 4 MiB
SHAPES = (CHAIN, Shape("tree", 2), Shape("tree", 3), Shape("tree", 4), DOUBLE_TREE)  # on a tie the first wins


@dataclass(frozen=True)
class Link:
    """What the model knows of the network and the hosts, taken to be alike. The defaults suit a 10 Gbit/s cluster.

    rate: bytes/s of one host's uplink, and of its downlink (full duplex).
    latency: seconds from the last byte of a block leaving a node to its reaching the next.
    block_cpu: seconds of fixed work per block and hop, both ends together; a mover does it under one interpreter lock.
    cpu_rate: bytes/s that a host's mover can receive, check, write and send on; divide it by the movers sharing a CPU.
    setup: seconds to open and authenticate one connection.
    """

    rate: float = 1e9
    latency: float = 100e-6
    block_cpu: float = 250e-6
    cpu_rate: float = 2e9
    setup: float = 1e-3

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
    stripes = shape.stripes
    copies = max(stripes, min(shape.fanout, n_nodes))  # the source of a double tree sends a block of each stripe
    block = min(block_size, total_bytes)
    rounds = max(1.0, total_bytes / (stripes * block)) if block else 1.0
    wire = copies * block / link.rate
    work = (stripes + copies) / 2 * (link.block_cpu + block / link.cpu_rate)
    fill = shape.depth(n_nodes) * (wire + link.latency + work)
    return (stripes + copies) * link.setup + fill + (rounds - 1) * max(wire, work)


def choose(
    n_nodes: int, total_bytes: int, link: Link = DEFAULT_LINK, block_size: int | None = None
) -> tuple[Shape, int, float]:
    """The fastest shape, its block size in bytes and the seconds predicted; a given block_size is kept."""
    sizes = BLOCK_SIZES if block_size is None else (block_size,)
    return _fastest(SHAPES, sizes, n_nodes, total_bytes, link)


def choose_block(total_bytes: int, n_nodes: int, link: Link, shape: Shape | None = None) -> int:
    """The block size that suits best: a power of two from 64 KiB (fill) to 4 MiB (work per block).

    For a `shape` already decided upon, or else for the fastest one.
    """
    return _fastest(SHAPES if shape is None else (shape,), BLOCK_SIZES, n_nodes, total_bytes, link)[1]


def _fastest(
    shapes: tuple[Shape, ...], sizes: tuple[int, ...], n_nodes: int, total_bytes: int, link: Link
) -> tuple[Shape, int, float]:
    options = [(s, b, predict(s, n_nodes, total_bytes, b, link)) for s in shapes for b in sizes]
    return min(options, key=lambda option: option[2])
