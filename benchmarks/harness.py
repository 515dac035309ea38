"""What all benchmarks share: runs of several alternatives in turn, tables, and one JSON file of results.

bench = Benchmark("broadcast")
samples = bench.alternate({"cp": run_cp, "pcp": run_pcp})
ratio = samples["pcp"].median / samples["cp"].median
bench.add("broadcast.1", "pcp to 4 nodes over cp per node", ratio, "x", aim="<= 1.5", met=ratio <= 1.5)
bench.finish()

The file, NAME.json: `benchmark`, `date`, `machine` (`cpu`, `cores`, `memory_gib`, `kernel`, `load_average` before and
after), `versions`, and two lists. `samples`, what was measured: `group`, `label`, `unit`, `runs` (one figure each, in
their order), `median`, `spread` ((max - min) / median), `note` ("once": too slow to be repeated; "at least": ended at
its time limit; "skipped: ..." and then no runs). `results`, what follows from it: `id`, `what`, `value`, `unit`, `aim`
and `met` (null where nothing was promised), `runs`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

Measured = Callable[[], float | None]  # None: its wall time in seconds is taken; a float: its own figure
DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
PACKAGES = ("longshore", "dask", "distributed", "cryptography", "blake3", "ClusterShell")


class Skipped(Exception):
    """Raised by an alternative that cannot run here; the text says why."""


class CutOff(Exception):
    """Raised by an alternative that was ended because it took too long, after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"ended after {seconds:.1f} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Sample:
    """The counted runs of one alternative, all in `unit`."""

    label: str
    unit: str
    runs: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        """The figure to report."""
        return statistics.median(self.runs)

    @property
    def spread(self) -> float:
        """(max - min) / median."""
        return (max(self.runs) - min(self.runs)) / self.median if self.median else 0.0

    def row(self, base: float) -> tuple[str, ...]:
        """Label, median, min, max, spread, ratio of medians to `base` and note, as table cells."""
        if not self.runs:
            return (self.label, "-", "-", "-", "-", "-", self.note)
        figures = (self.median, min(self.runs), max(self.runs))
        spread = f"{self.spread:.0%}" if self.median else "-"
        ratio = f"{self.median / base:.3f}" if base else "-"
        return (self.label, *(f"{x:.4g} {self.unit}" for x in figures), spread, ratio, self.note)


class Benchmark:
    """One benchmark's samples and results; `finish` prints them and writes NAME.json into `directory`, if any.

    least: how many runs a median needs.
    """

    def __init__(self, name: str, directory: Path | None = DIRECTORY, least: int = 3) -> None:
        self.name = name
        self.path = None if directory is None else directory / f"{name}.json"
        self.least = least
        self.samples: list[tuple[str, ...]] = [("sample", "median", "min", "max", "spread", "ratio", "note")]
        self.measured: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.load_before = os.getloadavg()[0]

    def measure(self, label: str, fn: Measured, runs: int = 3, warmup: int = 1, unit: str = "s") -> Sample:
        """Run `fn` `warmup` times uncounted, then `runs` times."""
        return self.alternate({label: fn}, runs, warmup, unit)[label]

    def alternate(
        self,
        alternatives: Mapping[str, Measured],
        runs: int = 3,
        warmup: int = 1,
        unit: str = "s",
        *,
        group: str = "",
        once_over: float | None = None,
        always: Collection[str] = (),
    ) -> dict[str, Sample]:
        """Measure in turn (A B A B ...), so that a slow spell of the machine meets all; ratios are to the first.

        An alternative whose figure is over `once_over` and that is none of `always`, or that was cut off, is not run
        again. One that raises Skipped is left out of what is returned.
        """
        if runs < self.least:
            raise ValueError(f"{runs} runs are too few for a median: take at least {self.least}")
        figures: dict[str, list[float]] = {label: [] for label in alternatives}
        notes: dict[str, str] = {}
        for turn in range(-warmup, runs):
            for label, fn in alternatives.items():
                if label in notes:
                    continue
                counted = f"run {turn + 1} of {runs}" if turn >= 0 else "warm-up"
                began = time.perf_counter()
                try:
                    returned = fn()
                except Skipped as reason:
                    notes[label] = f"skipped: {reason}"
                    figures[label].clear()
                    print(f"{self.name}: {label}: {notes[label]}", file=sys.stderr)
                    continue
                except CutOff as ended:
                    returned = ended.seconds
                    notes[label] = "at least"
                figure = time.perf_counter() - began if returned is None else float(returned)
                print(f"{self.name}: {label}: {counted}: {figure:.4g} {unit}", file=sys.stderr)
                if turn >= 0:
                    figures[label].append(figure)
                    if once_over is not None and figure > once_over and runs > 1 and label not in always:
                        notes.setdefault(label, "once")
        samples = {label: Sample(label, unit, tuple(taken), notes.get(label, "")) for label, taken in figures.items()}
        ran = {label: sample for label, sample in samples.items() if sample.runs}
        base = next(iter(ran.values())).median if ran else 0.0
        if group:
            self.samples.append((f"-- {group} --", *[""] * 6))
        self.samples += [sample.row(base) for sample in samples.values()]
        self.measured += [_measured(group, sample) for sample in samples.values()]
        return ran

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

    def finish(self) -> Path | None:
        """Print the tables, write the JSON file whole or not at all, and return its path."""
        report = {
            "benchmark": self.name,
            "machine": machine() | {"load_average": {"before": self.load_before, "after": os.getloadavg()[0]}},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "samples": self.measured,
            "results": self.results,
        }
        rows = [("result", "what", "value", "aim", "met")]
        for r in self.results:
            met = {True: "yes", False: "NO", None: "-"}[r["met"]]
            rows.append((r["id"], r["what"], f"{r['value']:.4g} {r['unit']}", r["aim"] or "-", met))
        print(_table(self.samples), _table(rows), sep="\n\n")
        print(f"\nmachine: {json.dumps(report['machine'])}\nversions: {json.dumps(report['versions'])}")
        if self.path is not None:
            write(self.path, json.dumps(report, indent=2, allow_nan=False) + "\n")
        return self.path


def _measured(group: str, sample: Sample) -> dict[str, Any]:
    figures = {"median": sample.median, "spread": sample.spread} if sample.runs else {"median": None, "spread": None}
    known = {"group": group, "label": sample.label, "unit": sample.unit, "runs": [*sample.runs]}
    return {**known, **figures, "note": sample.note}


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


def write(path: Path, text: str) -> None:
    """Put a file there, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
