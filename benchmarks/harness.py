"""What all benchmarks share: runs of several alternatives in turn, tables, and one JSON file of results.

bench = Benchmark("broadcast")
samples = bench.alternate({"cp": run_cp, "pcp": run_pcp})
ratio = samples["pcp"].median / samples["cp"].median
bench.add("broadcast.1", "pcp to 4 nodes over cp per node", ratio, "x", aim="<= 1.5", met=ratio <= 1.5)
bench.finish()
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

Measured = Callable[[], float | None]  # None: its wall time in seconds is taken; a float: its own figure
DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
PACKAGES = ("longshore", "dask", "distributed", "cryptography", "blake3", "ClusterShell")


@dataclass(frozen=True)
class Sample:
    """The counted runs of one alternative, all in `unit`."""

    label: str
    unit: str
    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to report."""
        return statistics.median(self.runs)

    def row(self, base: float) -> tuple[str, ...]:
        """Label, median, min, max, spread (max - min) and ratio of medians to `base`, as table cells."""
        low, high, middle = min(self.runs), max(self.runs), self.median
        spread = f"{(high - low) / middle:.0%}" if middle else "-"
        ratio = f"{middle / base:.3f}" if base else "-"
        return (self.label, *(f"{x:.4g} {self.unit}" for x in (middle, low, high)), spread, ratio)


class Benchmark:
    """One benchmark's samples and results; `finish` prints them and writes docs/benchmarks/NAME.json."""

    def __init__(self, name: str, directory: Path = DIRECTORY) -> None:
        self.name = name
        self.path = directory / f"{name}.json"
        self.samples: list[tuple[str, ...]] = [("sample", "median", "min", "max", "spread", "ratio")]
        self.results: list[dict[str, Any]] = []
        self.load_before = os.getloadavg()[0]

    def measure(self, label: str, fn: Measured, runs: int = 3, warmup: int = 1, unit: str = "s") -> Sample:
        """Run `fn` `warmup` times uncounted, then `runs` times (at least 3)."""
        return self.alternate({label: fn}, runs, warmup, unit)[label]

    def alternate(
        self, alternatives: Mapping[str, Measured], runs: int = 3, warmup: int = 1, unit: str = "s"
    ) -> dict[str, Sample]:
        """Measure in turn (A B A B ...), so that a slow spell of the machine meets all; ratios are to the first."""
        if runs < 3:
            raise ValueError(f"{runs} runs are too few for a median: take at least 3")
        figures: dict[str, list[float]] = {label: [] for label in alternatives}
        for turn in range(-warmup, runs):
            for label, fn in alternatives.items():
                began = time.perf_counter()
                returned = fn()
                figure = time.perf_counter() - began if returned is None else float(returned)
                counted = f"run {turn + 1} of {runs}" if turn >= 0 else "warm-up"
                print(f"{self.name}: {label}: {counted}: {figure:.4g} {unit}", file=sys.stderr)
                figures[label].append(figure)
        samples = {label: Sample(label, unit, tuple(values[warmup:])) for label, values in figures.items()}
        base = next(iter(samples.values())).median
        self.samples += [sample.row(base) for sample in samples.values()]
        return samples

    def add(
        self,
        id: str,
        what: str,
        value: float,
        unit: str,
        aim: str | None = None,
        met: bool | None = None,
        runs: Sequence[float] = (),
    ) -> None:
        """Record the figure that answers acceptance line `id`; ValueError if malformed or `met` without `aim`."""
        if not re.fullmatch(r"[a-z][a-z0-9_-]*\.[0-9]+", id):
            raise ValueError(f"id {id!r} is not of the form broadcast.1")
        if aim is None and met is not None:
            raise ValueError(f"{id}: met without an aim")
        result = {"id": id, "what": what, "value": value, "unit": unit, "aim": aim, "met": met, "runs": [*runs]}
        self.results.append(result)

    def finish(self) -> Path:
        """Print the tables, write the JSON file whole or not at all, and return its path."""
        report = {
            "benchmark": self.name,
            "machine": machine() | {"load_average": {"before": self.load_before, "after": os.getloadavg()[0]}},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "results": self.results,
        }
        rows = [("result", "what", "value", "aim", "met")]
        for r in self.results:
            met = {True: "yes", False: "NO", None: "-"}[r["met"]]
            rows.append((r["id"], r["what"], f"{r['value']:.4g} {r['unit']}", r["aim"] or "-", met))
        print(_table(self.samples), _table(rows), sep="\n\n")
        print(f"\nmachine: {json.dumps(report['machine'])}\nversions: {json.dumps(report['versions'])}")
        _replace(self.path, json.dumps(report, indent=2, allow_nan=False) + "\n")
        return self.path


def machine() -> dict[str, object]:
    """CPU model, cores this process may use, memory in GiB, kernel version; nothing that names the host."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    names = {"cpu": cpu[1] if cpu else platform.machine(), "cores": len(os.sched_getaffinity(0))}
    return {**names, "memory_gib": round(memory, 1), "kernel": platform.release().partition("-")[0]}


def versions() -> dict[str, str | None]:
    """The versions of Python and of the packages that matter; None for one that is not installed."""
    installed = {found.name.lower(): found.version for found in metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed.get(name.lower()) for name in PACKAGES}}


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
