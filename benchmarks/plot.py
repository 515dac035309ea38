"""Figures for the docs, as SVG that comes out the same byte for byte from the same numbers.

    lines("time.svg", {"chain": [(10, 8.6), (100, 8.8)]}, x="nodes", y="seconds", log="xy")
    bars("peers.svg", {"pcp": 2.8, "scp": 25.0}, x="seconds")

Needs matplotlib: pip install -e '.[bench]'. Text stays text, in the viewer's own sans-serif.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot  # after the choice of what it draws with
from matplotlib.ticker import FuncFormatter, NullFormatter

# told apart by those who see no red or no green (Okabe and Ito), and by their dashes and marks in grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKS = "os^Dv*x"
STYLE = {
    "svg.hashsalt": "longshore",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")


def lines(
    path: str | os.PathLike[str],
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    title: str = "",
    log: str = "",
    level: tuple[str, float] | None = None,
) -> Path:
    """Draw each series of (x, y). log: the axes that are logarithmic, such as "xy". level: a labelled horizontal."""
    with mpl.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 4))
        for number, (label, points) in enumerate(series.items()):
            axes.plot(
                *zip(*points, strict=True),
                label=label,
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number % len(DASHES)],
                marker=MARKS[number % len(MARKS)],
                markersize=4,
            )
        if level is not None:
            axes.axhline(level[1], color="#888888", linewidth=1, label=level[0])
        for name, axis, scale in (("x", axes.xaxis, axes.set_xscale), ("y", axes.yaxis, axes.set_yscale)):
            if name in log:
                scale("log")
                axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(PLAIN)
        if "y" not in log:
            axes.set_ylim(bottom=0)
        axes.set(xlabel=x, ylabel=y, title=title)
        axes.legend()
        return _save(figure, path)


def bars(path: str | os.PathLike[str], values: Mapping[str, float], x: str, title: str = "", unit: str = "") -> Path:
    """Draw a horizontal bar for each value, the first on top, with its figure at its end."""
    with mpl.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 0.8 + 0.32 * len(values)))
        drawn = axes.barh([*values], [*values.values()], color=COLOURS[0], height=0.65)
        axes.bar_label(drawn, [f"{value:.3g}{unit and ' ' + unit}" for value in values.values()], padding=3)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter(PLAIN)
        axes.set(xlabel=x, title=title)
        return _save(figure, path)


def _save(figure: Any, path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
        pyplot.close(figure)
    return target
