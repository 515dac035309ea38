"""Figures: the same bytes from the same numbers, every series named, nothing half written."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def plot() -> ModuleType:
    pytest.importorskip("matplotlib")
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "plot.py"
    spec = importlib.util.spec_from_file_location("benchmarks_plot", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(path: Path) -> list[str]:
    return ["".join(text.itertext()).strip() for text in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_lines_come_out_the_same_twice(plot: ModuleType, tmp_path: Path) -> None:
    series = {"chain": [(10, 8.6), (100, 8.8), (1000, 10.0)], "double tree": [(10, 8.6), (100, 8.7), (1000, 8.7)]}
    options = {"x": "nodes", "y": "seconds", "log": "xy", "title": "a title", "level": ("the line", 8.5)}
    paths = [plot.lines(tmp_path / name, series, **options) for name in ("one.svg", "two.svg")]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert {"chain", "double tree", "the line", "nodes", "seconds", "a title", "1,000"} <= {*words(paths[0])}
    assert b"<dc:date>" not in first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.svg", "two.svg"]


def test_bars_are_labelled_with_name_and_figure(plot: ModuleType, tmp_path: Path) -> None:
    path = plot.bars(tmp_path / "new" / "bars.svg", {"pcp": 2.81, "scp": 25.0}, x="seconds", unit="s")
    assert {"pcp", "scp", "2.81 s", "25 s", "seconds"} <= {*words(path)}
