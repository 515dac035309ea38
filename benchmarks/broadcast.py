"""pcp on the embedded cluster against `cp` once per node: the same bytes on the same disk.

    python -m benchmarks.broadcast [--size 512M] [--nodes 8] [--dir DIR]

`cp` checks nothing and its "network" is this machine's page cache, so it is a floor, not a peer. Everything shares this
machine's cores: figures of interest are the ratio and, for the later network benchmarks, the harness.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.harness import Benchmark
from cluster import embedded
from cluster.commands.up import SERVICES
from cluster.layout import Layout
from staging.units import parse_size

CHUNK = 1 << 20


@click.command()
@click.option("--size", default="512M", show_default=True)
@click.option("--nodes", "count", default=8, show_default=True)
@click.option("--dir", "directory", default=None, help="Where the nodes' files go. Default: a temporary directory.")
def main(size: str, count: int, directory: str | None) -> None:
    benchmark = Benchmark("broadcast")
    total = parse_size(size)
    with tempfile.TemporaryDirectory(prefix="lsb-", dir=directory) as temporary:
        source = Path(temporary) / "source"
        with open(source, "wb") as file:
            for _ in range(total // CHUNK):
                file.write(os.urandom(CHUNK))
        layout = Layout(Path(temporary) / "c")
        embedded.start(layout, count, SERVICES)
        try:
            run(benchmark, layout, source, count, total)
        finally:
            embedded.stop(layout)
    benchmark.finish()


def run(benchmark: Benchmark, layout: Layout, source: Path, count: int, total: int) -> None:
    names = [f"n{number}" for number in range(1, count + 1)]
    targets = [layout.root(name) / "scratch" / "file" for name in names]

    def clear() -> None:
        for target in targets:
            target.unlink(missing_ok=True)

    def pcp(shape: str) -> None:
        clear()
        argv = [sys.executable, "-m", "staging.pcp", "-q", "-f", shape, str(source), "/scratch/file", *names]
        subprocess.run(argv, check=True, env={**os.environ, "STAGE_CLUSTER": str(layout.base)})

    def cp() -> None:
        clear()
        for target in targets:
            subprocess.run(["cp", str(source), str(target)], check=True)

    samples = benchmark.alternate(
        {
            "cp per node": cp,
            "pcp chain": lambda: pcp("chain"),
            "pcp -f 2": lambda: pcp("2"),
            "pcp double tree": lambda: pcp("double"),
        }
    )
    floor = samples["cp per node"]
    for label, sample in samples.items():
        rate = total * count / sample.median / 1e6
        benchmark.add("broadcast.0", f"{label}, {total >> 20} MiB to {count} nodes", rate, "MB/s", runs=sample.runs)
        if sample is not floor:
            ratio = sample.median / floor.median
            benchmark.add("broadcast.0", f"{label}: time over cp's", ratio, "ratio", runs=sample.runs)


if __name__ == "__main__":
    main()
