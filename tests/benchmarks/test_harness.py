"""The benchmark harness: order of runs, figures, and the file it writes."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "harness.py"
    spec = importlib.util.spec_from_file_location("benchmarks_harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


harness = load()


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    return harness.Benchmark("demo", tmp_path / "docs" / "benchmarks")


def figures(values: list[float], calls: list[str], name: str) -> Callable[[], float]:
    source: Iterator[float] = iter(values)

    def fn() -> float:
        calls.append(name)
        return next(source)

    return fn


def test_alternatives_take_turns_and_the_warm_up_does_not_count(bench: Any) -> None:
    calls: list[str] = []
    fns = {"a": figures([99, 1, 5, 2], calls, "a"), "b": figures([99, 4, 4, 4], calls, "b")}
    samples = bench.alternate(fns, runs=3, warmup=1, unit="MB/s")
    assert calls == ["a", "b"] * 4
    assert samples["a"].runs == (1, 5, 2)
    assert samples["a"].median == 2
    assert samples["a"].unit == "MB/s"
    assert samples["b"].runs == (4, 4, 4)


def test_a_function_that_returns_none_is_timed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.5, 20.0, 21.0, 30.0, 33.0])
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    sample = bench.measure("wait", lambda: None, runs=3, warmup=0)
    assert (sample.runs, sample.median, sample.unit) == ((0.5, 1.0, 3.0), 1.0, "s")


def test_a_figure_of_zero_is_a_figure(bench: Any) -> None:
    assert bench.measure("nothing sent", lambda: 0.0, unit="B").runs == (0, 0, 0)
    bench.finish()


def test_fewer_than_three_runs_are_refused(bench: Any) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        bench.measure("a", lambda: 1.0, runs=2)


def test_file_holds_every_result_and_no_host(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sample = bench.measure("copy", lambda: 2.5)
    bench.add("demo.1", "copying", sample.median, "s", aim="<= 3 s", met=True, runs=sample.runs)
    bench.add("demo.2", "size", 7, "B")
    path = bench.finish()
    report = json.loads(path.read_text())
    assert path.name == "demo.json"
    assert [p.name for p in path.parent.iterdir()] == ["demo.json"]
    assert report["results"] == [
        {"id": "demo.1", "what": "copying", "value": 2.5, "unit": "s"}
        | {"aim": "<= 3 s", "met": True, "runs": [2.5, 2.5, 2.5]},
        {"id": "demo.2", "what": "size", "value": 7, "unit": "B", "aim": None, "met": None, "runs": []},
    ]
    assert report["benchmark"] == "demo"
    assert datetime.fromisoformat(report["date"]).tzinfo is not None
    assert report["versions"]["python"] == platform.python_version()
    assert report["versions"]["dask"]
    assert set(report["machine"]) == {"cpu", "cores", "memory_gib", "kernel", "load_average"}
    assert set(report["machine"]["load_average"]) == {"before", "after"}
    out = capsys.readouterr().out
    assert "copying" in out
    assert "<= 3 s" in out


def test_table_is_aligned_with_ratios_to_the_first(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench.alternate({"cp": lambda: 2.0, "a longer name": lambda: 3.0})
    bench.finish()
    head, cp, longer = capsys.readouterr().out.splitlines()[:3]
    assert cp.split()[-1] == "1.000"
    assert longer.split()[-1] == "1.500"
    assert head.index("median") == cp.index("2 s") == longer.index("3 s")


@pytest.mark.parametrize("wrong", ["demo", "demo.", "Demo.1", "demo.x", "de mo.1"])
def test_malformed_id_is_refused(bench: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match="is not of the form"):
        bench.add(wrong, "x", 1.0, "s")


def test_met_without_an_aim_is_refused(bench: Any) -> None:
    with pytest.raises(ValueError, match="without an aim"):
        bench.add("demo.1", "x", 1.0, "s", met=True)


def test_what_json_cannot_hold_leaves_the_old_file_alone(bench: Any) -> None:
    path = bench.finish()
    before = path.read_bytes()
    bench.add("demo.1", "x", math.nan, "s")
    with pytest.raises(ValueError, match="JSON compliant"):
        bench.finish()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["demo.json"]


def test_interrupted_write_leaves_nothing(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError("no rename today")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no rename today"):
        bench.finish()
    assert list(bench.path.parent.iterdir()) == []


def test_what_is_too_slow_runs_once_and_what_was_cut_off_is_a_bound(bench: Any) -> None:
    calls: list[str] = []

    def endless() -> float:
        raise harness.CutOff(90.0)

    fns = {"a": figures([21, 22, 23], calls, "a"), "slow": figures([30], calls, "slow"), "endless": endless}
    samples = bench.alternate(fns, warmup=0, once_over=20.0, always=("a",))
    assert calls == ["a", "slow", "a", "a"]
    assert [(s.runs, s.note) for s in samples.values()] == [
        ((21, 22, 23), ""),
        ((30,), "once"),
        ((90.0,), "at least"),
    ]


def test_what_cannot_run_here_is_told_and_left_out(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def absent() -> float:
        raise harness.Skipped("sbcast is not installed")

    samples = bench.alternate({"absent": absent, "b": lambda: 2.0}, group="copy")
    assert list(samples) == ["b"]
    report = json.loads(bench.finish().read_text())
    assert [(row["group"], row["label"], row["runs"], row["median"], row["note"]) for row in report["samples"]] == [
        ("copy", "absent", [], None, "skipped: sbcast is not installed"),
        ("copy", "b", [2.0, 2.0, 2.0], 2.0, ""),
    ]
    assert "sbcast is not installed" in capsys.readouterr().out


def test_no_directory_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    bench = harness.Benchmark("demo", None, least=1)
    bench.alternate({"a": lambda: 1.0}, runs=1, warmup=0)
    assert bench.finish() is None
    assert "1 s" in capsys.readouterr().out
