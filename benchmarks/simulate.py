"""The planner's broadcasts on a virtual clock: time against nodes for each shape, and for the one that is chosen.

    python -m benchmarks.simulate [--size 10G] [--gigabit 10] [--latency 100]

Every plan is really built and every edge of it gone along (`staging/plan/arrivals.py`); the tests hold this to a
simulation that moves each block. Needs matplotlib: pip install -e '.[bench]'.
"""

from __future__ import annotations

import time

import click

from benchmarks import plot
from benchmarks.harness import Benchmark
from staging.plan.arrivals import arrivals
from staging.plan.cost import Link, choose, choose_block
from staging.plan.tree import CHAIN, DOUBLE_TREE, Shape, build
from staging.units import human_bytes, parse_size

COUNTS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
TABLED = (10, 100, 1000, 10_000)
SHAPES = {
    "chain": CHAIN,
    "binary tree": Shape("tree", 2),
    "double tree": DOUBLE_TREE,
    "3 disjoint trees": Shape("trees", 3),
    "4 disjoint trees": Shape("trees", 4),
}
DRAWN = ("chain", "binary tree", "double tree", "chosen")
AIM = 1.1


@click.command()
@click.option("--size", default="10G", show_default=True)
@click.option("--gigabit", default=10.0, show_default=True, help="Rate of a node's link, in Gbit/s.")
@click.option("--latency", default=100.0, show_default=True, help="Latency, in microseconds.")
def main(size: str, gigabit: float, latency: float) -> None:
    began = time.monotonic()
    benchmark = Benchmark("simulate")
    total, link = parse_size(size), Link(rate=gigabit * 1e9 / 8, latency=latency * 1e-6)
    line = total / link.rate
    setting = f"{human_bytes(total)} at {gigabit:g} Gbit/s and {latency:g} us"
    times: dict[str, list[tuple[float, float]]] = {label: [] for label in (*SHAPES, "chosen")}
    print(
        f"{setting}: the line takes {line:.2f} s\n\n{'nodes':>6}  {'shape':24}{'block':>10}{'seconds':>10}{'x line':>8}"
    )
    for count in COUNTS:
        names = [f"n{number}" for number in range(1, count + 1)]
        best, chosen_block, _ = choose(count, total, link)
        plans = {label: (shape, choose_block(shape, count, total, link)[0]) for label, shape in SHAPES.items()}
        for label, (shape, block) in {**plans, "chosen": (best, chosen_block)}.items():
            seconds = max(arrivals(build("source", names, shape), total, block, link).values())
            times[label].append((count, seconds))
            if count not in TABLED:
                continue
            shown = f"chosen: {shape}" if label == "chosen" else label
            print(f"{count:6}  {shown:24}{human_bytes(block):>10}{seconds:10.2f}{seconds / line:8.3f}")
            aimed = label == "chosen"
            what = f"{setting} to {count} nodes, {shown}: time over the line's"
            aim, met = (f"<= {AIM}", seconds <= AIM * line) if aimed else (None, None)
            benchmark.add("simulate.1" if aimed else "simulate.0", what, seconds / line, "ratio", aim, met)
    benchmark.add("simulate.2", "all of these plans built and gone along", time.monotonic() - began, "s")
    print()
    path = benchmark.finish()
    assert path is not None
    plot.lines(
        path.with_suffix(".svg"),
        {label: times[label] for label in DRAWN},
        x="nodes",
        y="seconds",
        title=f"{setting.replace(' us', ' µs')}: predicted time",
        log="x",
        level=("the line: size / rate", line),
    )


if __name__ == "__main__":
    main()
