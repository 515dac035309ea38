"""pcp against its packaged peers and against one TCP stream, on a test cluster in namespaces of this machine.

    python -m benchmarks.broadcast [--only SCENARIO]... [--repeat 3] [--quick] [--out DIR]

Needs root, sshd, and of the peers (Debian: slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge udpcast uftp
clustershell rsync) those that are to take part. All of a scenario takes turns in one run. The limit is one TCP stream
from the head to one node, of the same bytes. pcp's time is that of its whole command, verification included; the
staging cluster is up before, as is sbcast's Slurm. After each copy every node's files are compared with the source.

A full run writes broadcast.json (see benchmarks.harness) and broadcast.svg into docs/benchmarks. `--only` and `--quick`
(tiny sizes, to see that all works) write only where --out says.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import peers
from benchmarks.harness import DIRECTORY, Benchmark, Measured, Sample, Skipped
from benchmarks.rig import COPY_SECONDS, OUT, SOURCE, Pcp, Rig, staging_cluster
from tests.hosts import Cluster
from tests.hosts import slurm as slurm_on_hosts

MIB = 1 << 20
ONCE_OVER = 20.0  # seconds; a peer that takes longer is measured once
CUT_OFF = 5.6  # times the line's time: what a peer gets where it only has to be slower than that
CPU_CUT_OFF = 30.0  # seconds; where the fastest peer is asked for
SLOW = 10  # times less than the others: the slow node's rate

PEERS: dict[str, peers.Peer] = {
    "uftp, rate by hand": peers.uftp(),
    "udpcast": peers.udpcast(at_rate=False),
    "udpcast, rate by hand": peers.udpcast(at_rate=True),
    "sbcast": peers.sbcast(),
    "sbcast -F 2": peers.sbcast("-F", "2"),
    "clush --copy": peers.clush,
    "scp loop": peers.scp,
    "rsync loop": peers.rsync,
}

# where nobody sets a rate
CPU_PEERS: dict[str, peers.Peer] = {
    "uftp at any rate": peers.uftp("-R", "-1"),
    "uftp, its own control": peers.uftp("-C", "tfmcc"),
    **{label: peer for label, peer in PEERS.items() if "by hand" not in label},
}


@dataclass(frozen=True)
class Bench:
    """A benchmark on a rig, and how it is to be run."""

    benchmark: Benchmark
    rig: Rig
    repeat: int
    quick: bool

    def size(self, nbytes: int, tiny: int) -> int:
        return tiny if self.quick else nbytes

    def take_turns(self, group: str, alternatives: Mapping[str, Measured]) -> dict[str, Sample]:
        ours = [label for label in alternatives if label not in PEERS and label not in CPU_PEERS]
        turns = self.benchmark.alternate
        return turns(alternatives, self.repeat, 0, group=group, once_over=ONCE_OVER, always=ours)

    def add(self, line: int, what: str, value: float, unit: str, aim: tuple[str, float] | None = None) -> None:
        """Answer an acceptance line; aim: "<=", "<" or ">=" and the figure. Tiny sizes meet and miss nothing."""
        if aim is None:
            self.benchmark.add(f"broadcast.{line}", what, value, unit)
            return
        relation, bound = aim
        met = {"<=": value <= bound, "<": value < bound, ">=": value >= bound}[relation]
        self.benchmark.add(f"broadcast.{line}", what, value, unit, f"{relation} {bound:g}", None if self.quick else met)

    def ours(self, *options: str) -> Measured:
        return self.checked(lambda: self.rig.pcp(*options))

    def peer(self, peer: peers.Peer, limit: float = COPY_SECONDS) -> Measured:
        def run() -> float:
            try:
                return peer(self.rig, limit)
            except RuntimeError as error:  # a peer that cannot do it is a result too
                raise Skipped(str(error).splitlines()[0]) from None

        return self.checked(run)

    def checked(self, copy: Callable[[], float]) -> Measured:
        """A copy onto empty nodes that is compared with the source afterwards."""

        def run() -> float:
            self.rig.clear()
            seconds = copy()
            self.rig.verify()
            return seconds

        return run


def one_file(bench: Bench) -> None:
    """64 MiB to 8 nodes at 200 Mbit/s, all peers."""
    nbytes = bench.size(64 * MIB, 2 * MIB)
    bench.rig.make_file(nbytes)
    copies: dict[str, Measured] = {label: bench.peer(peer) for label, peer in PEERS.items()}
    taken = bench.take_turns(
        "one-file", {"one TCP stream": lambda: peers.stream(bench.rig, nbytes), "pcp": bench.ours(), **copies}
    )
    limit, ours = taken["one TCP stream"].median, taken["pcp"].median
    bench.add(1, f"{_name(bench, nbytes)}: pcp over one stream", ours / limit, "x", ("<=", 1.12))
    _sbcast(bench, f"{_name(bench, nbytes)}: sbcast's best over pcp", taken, ours)


def large_file(bench: Bench) -> None:
    """512 MiB to 8 nodes at 200 Mbit/s."""
    nbytes = bench.size(512 * MIB, 4 * MIB)
    bench.rig.make_file(nbytes)
    taken = bench.take_turns(
        "large-file", {"one TCP stream": lambda: peers.stream(bench.rig, nbytes), "pcp": bench.ours()}
    )
    ratio = taken["pcp"].median / taken["one TCP stream"].median
    bench.add(1, f"{_name(bench, nbytes)}: pcp over one stream", ratio, "x", ("<=", 1.03))


def many_nodes(bench: Bench) -> None:
    """128 MiB to 32 nodes at 50 Mbit/s."""
    nbytes = bench.size(128 * MIB, 1 * MIB)
    bench.rig.make_file(nbytes)
    limit = COPY_SECONDS if bench.quick else CUT_OFF * nbytes * 8 / 50e6
    copies: dict[str, Measured] = {label: bench.peer(PEERS[label], limit) for label in ("sbcast", "sbcast -F 2")}
    taken = bench.take_turns(
        "many-nodes", {"one TCP stream": lambda: peers.stream(bench.rig, nbytes), "pcp": bench.ours(), **copies}
    )
    line, ours = taken["one TCP stream"].median, taken["pcp"].median
    bench.add(1, f"{_name(bench, nbytes)}: pcp over one stream", ours / line, "x", ("<=", 1.06))
    _sbcast(bench, f"{_name(bench, nbytes)}: sbcast's best over pcp", taken, ours)


def cpu(bench: Bench) -> None:
    """1 GiB to 8 nodes without a rate limit: this machine's CPUs are the limit."""
    nbytes = bench.size(1024 * MIB, 16 * MIB)
    bench.rig.make_file(nbytes)
    used: dict[str, list[float]] = {}

    def with_cpu(label: str, run: Callable[[], float]) -> Measured:
        def counted() -> float:
            bench.rig.clear()
            before = bench.rig.cpu()
            seconds = run()
            used.setdefault(label, []).append(bench.rig.cpu() - before)
            bench.rig.verify()
            return seconds

        return counted

    contenders: dict[str, Callable[[], float]] = {"pcp": bench.rig.pcp}
    for label, peer in CPU_PEERS.items():
        contenders[label] = lambda peer=peer: peer(bench.rig, CPU_CUT_OFF)  # type: ignore[misc]
    taken = bench.take_turns(
        "cpu",
        {
            "one TCP stream": lambda: peers.stream(bench.rig, nbytes),
            **{label: with_cpu(label, run) for label, run in contenders.items()},
        },
    )
    rivals = {label: sample.median for label, sample in taken.items() if label not in ("one TCP stream", "pcp")}
    name = f"{_name(bench, nbytes)}, no rate limit"
    if rivals:
        best = min(rivals, key=lambda label: rivals[label])
        ratio = taken["pcp"].median / rivals[best]
        bench.add(2, f"{name}: pcp over the fastest peer ({best})", ratio, "x", ("<=", 1.0))
    gib = nbytes * len(bench.rig.names) / (1 << 30)
    for label, seconds in used.items():
        if label in taken:
            middle = sorted(seconds)[len(seconds) // 2]
            bench.add(2, f"{name}: {label}, CPU seconds for each GiB delivered", middle / gib, "s/GiB")


def tiny(bench: Bench) -> None:
    """A file of 1 KiB."""
    bench.rig.make_file(1024)
    labels = ("uftp, rate by hand", "clush --copy", "scp loop") if len(bench.rig.names) < 16 else ("clush --copy",)
    copies: dict[str, Measured] = {label: bench.peer(PEERS[label]) for label in labels}
    count = len(bench.rig.names)
    taken = bench.take_turns(f"tiny, {count} nodes", {"pcp": bench.ours(), **copies})
    bench.add(3, f"1 KiB to {count} nodes: pcp", taken["pcp"].median, "s", ("<", 1.0 if count > 8 else 0.4))


def small_files(bench: Bench) -> None:
    """20,000 files of 4 KiB to 8 nodes at 200 Mbit/s, and one file of as many bytes."""
    files, nbytes = bench.size(20_000, 200), 4096
    rig = bench.rig

    def as_one_file() -> float:
        rig.make_file(files * nbytes)
        return bench.ours()()  # type: ignore[return-value]

    def as_tree(copy: Measured) -> Measured:
        def run() -> float | None:
            if not rig.head.path(SOURCE).is_dir():
                rig.make_tree(files, nbytes)
            return copy()

        return run

    taken = bench.take_turns(
        "small-files",
        {
            "one TCP stream": lambda: peers.stream(rig, files * nbytes),
            "pcp -r": as_tree(bench.ours("-r")),
            "rsync loop": as_tree(bench.peer(peers.rsync)),
            "pcp, one file of the same size": as_one_file,
        },
    )
    name = f"{files} files of 4 KiB to {len(rig.names)} nodes"
    ours = taken["pcp -r"].median
    if "rsync loop" in taken:
        bench.add(4, f"{name}: rsync loop over pcp", taken["rsync loop"].median / ours, "x", (">=", 10))
    rate = taken["pcp, one file of the same size"].median / ours
    bench.add(4, f"{name}: pcp's rate over that for one file", rate, "x", (">=", 0.6))


def slow_node(bench: Bench) -> None:
    """512 MiB to 8 nodes at 200 Mbit/s, one of which has a tenth; each copy ends when the seven others have it."""
    nbytes = bench.size(512 * MIB, 16 * MIB)
    rig = bench.rig
    rig.make_file(nbytes)
    slow, others = rig.names[-1], rig.names[:-1]
    middle = len(others) // 2
    lists = {
        "seven nodes without it": others,
        "slow node first": [slow, *others],
        "slow node in the middle": [*others[:middle], slow, *others[middle:]],
        "slow node last": [*others, slow],
    }

    def seven(names: Sequence[str]) -> Measured:
        def run() -> float:
            rig.clear()
            done = until_done(rig, names, others)
            rig.verify(others)
            return max(done.values())

        return run

    assert rig.rate_mbit is not None
    rig.cluster.rate(slow, f"{rig.rate_mbit / SLOW:g}mbit")
    try:
        taken = bench.take_turns("slow-node", {label: seven(names) for label, names in lists.items()})
    finally:
        rig.cluster.rate(slow, f"{rig.rate_mbit:g}mbit")
    base = taken.pop("seven nodes without it").median
    for label, sample in taken.items():
        bench.add(5, f"{label}: the seven others over seven without it", sample.median / base, "x", ("<=", 1.15))


def until_done(rig: Rig, names: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """Copy, but interrupt the command once the `wanted` nodes have the source; seconds to each node's end."""
    pcp = Pcp(rig.head, [SOURCE, f"{OUT}/source", *names])
    missing = set(wanted)
    for event in pcp.events():
        if event["type"] == "node-done":
            missing.discard(event["node"])
        if not missing:
            break
    copy = pcp.end(signal.SIGINT if len(names) > len(wanted) else None)
    if missing:
        raise RuntimeError(f"no copy on {', '.join(sorted(missing))}: {copy.failed()} {copy.errors}")
    return {name: seconds for name, seconds in copy.done().items() if name in wanted}


def _sbcast(bench: Bench, what: str, taken: Mapping[str, Sample], ours: float) -> None:
    times = [sample.median for label, sample in taken.items() if label.startswith("sbcast")]
    if times:
        bench.add(1, what, min(times) / ours, "x", (">=", 5))


def _name(bench: Bench, nbytes: int) -> str:
    return f"{nbytes // MIB} MiB to {len(bench.rig.names)} nodes"


@dataclass(frozen=True)
class Setting:
    """A cluster, and what is measured on it."""

    nodes: int
    rate_mbit: float | None
    slurm: bool
    scenarios: dict[str, Callable[[Bench], None]]


SETTINGS = (
    Setting(8, 200, True, {"one-file": one_file, "tiny": tiny, "small-files": small_files}),
    Setting(8, 200, False, {"large-file": large_file, "slow-node": slow_node}),
    Setting(32, 50, True, {"many-nodes": many_nodes, "tiny-32": tiny}),
    Setting(8, None, True, {"cpu": cpu}),
)
NAMES = [name for setting in SETTINGS for name in setting.scenarios]


@contextlib.contextmanager
def rigged(setting: Setting) -> Iterator[Rig]:
    """A rig with everything up."""
    rate = None if setting.rate_mbit is None else f"{setting.rate_mbit:g}mbit"
    with_slurm = setting.slurm and not slurm_on_hosts.missing()
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(setting.nodes, rate=rate, sshd=True, munged=with_slurm, users=with_slurm))
        slurm = stack.enter_context(slurm_on_hosts.Slurm(cluster)) if with_slurm else None
        stack.enter_context(staging_cluster(cluster))
        yield Rig(cluster, slurm, setting.rate_mbit)


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Measure only this; may be repeated.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True)
@click.option("--quick", is_flag=True, help="Tiny sizes, each once: see that everything works.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the files go.")
def main(only: tuple[str, ...], repeat: int, quick: bool, out: Path | None) -> None:
    """Measure pcp and its peers."""
    repeat = 1 if quick else repeat
    full = not only and not quick
    directory = out or (DIRECTORY if full else None)
    benchmark = Benchmark("broadcast", directory, least=min(repeat, 3) if not full else 3)
    began = time.monotonic()
    for setting in SETTINGS:
        chosen = {name: run for name, run in setting.scenarios.items() if not only or name in only}
        if not chosen:
            continue
        with rigged(setting) as rig:
            for run in chosen.values():
                run(Bench(benchmark, rig, repeat, quick))
    benchmark.finish()
    print(f"took {time.monotonic() - began:.0f} s")
    if directory is not None:
        draw(benchmark, directory / "broadcast.svg")


def draw(benchmark: Benchmark, path: Path) -> None:
    """The times of one-file over that of one TCP stream."""
    from benchmarks import plot  # here, for it needs matplotlib

    times = {row["label"]: row["median"] for row in benchmark.measured if row["group"] == "one-file" and row["runs"]}
    if not times:
        return
    limit = times["one TCP stream"]
    ratios = {label: seconds / limit for label, seconds in sorted(times.items(), key=lambda item: item[1])}
    plot.bars(path, ratios, x="time over that of one TCP stream to one node", title="64 MiB to 8 nodes at 200 Mbit/s")


if __name__ == "__main__":
    main()
