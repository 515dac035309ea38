"""What a user sees while transfers run: live bars, plain lines, JSON, or nothing.

The caller calls `event` whenever an event (docs/events.md) arrives, `tick` about four times a second, `print_line`
for any other line meant for stderr, and `close` in the end; all from one thread. `now` is Unix time in seconds.
No display starts a thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from staging.progress import Amount, Event, Progress, Snapshot
from staging.units import human_rate, printable
from staging.wording import eta, event_line, node_state, of_total, percent, progress_line, start_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

SCHEMA = 1  # of the JSON events; fields and types are only ever added to it
LINE_INTERVAL = 10.0  # seconds between the lines of LineDisplay
REFRESH_INTERVAL = 0.125  # seconds; LiveDisplay draws no more often than this
MAX_NODE_ROWS = 16

Mode = Literal["auto", "live", "lines", "none"]


class Display(Protocol):
    """See the module's text for who calls what, and when."""

    def event(self, event: Event, now: float) -> None: ...
    def tick(self, now: float) -> None: ...
    def print_line(self, text: str) -> None: ...
    def close(self) -> None: ...


def make_display(mode: Mode, *, json: bool, stderr: TextIO, stdout: TextIO, env: Mapping[str, str]) -> Display:
    """The display for --progress `mode` and --json (which decides alone when given).

    "auto" is live on a terminal and lines elsewhere; a terminal that cannot move its cursor always has lines.
    """
    if json:
        return JsonDisplay(stdout, stderr)
    if mode == "none":
        return NullDisplay(stderr)
    dumb = env.get("TERM", "").lower() in ("", "dumb", "unknown")
    if mode == "lines" or dumb or (mode == "auto" and not stderr.isatty()):
        return LineDisplay(stderr)
    from rich.console import Console  # here, since it takes longer to import than all the rest

    return LiveDisplay(Console(file=stderr, force_terminal=True, no_color=bool(env.get("NO_COLOR"))))


class NullDisplay:
    """Shows nothing of the events."""

    def __init__(self, stderr: TextIO) -> None:
        self._stderr = stderr

    def event(self, event: Event, now: float) -> None:
        pass

    def tick(self, now: float) -> None:
        pass

    def print_line(self, text: str) -> None:
        self._stderr.write(text + "\n")
        self._stderr.flush()

    def close(self) -> None:
        pass


class JsonDisplay(NullDisplay):
    """Writes each event to stdout as one line of JSON with "schema" and "time" added. ASCII only."""

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        super().__init__(stderr)
        self._stdout = stdout

    def event(self, event: Event, now: float) -> None:
        line = {"type": event["type"], "schema": SCHEMA, "time": now, **event}
        self._stdout.write(json.dumps(line, allow_nan=False) + "\n")
        self._stdout.flush()


class LineDisplay(NullDisplay):
    """A line at the start and end of each transfer and every 10 s between, for log files."""

    def __init__(self, stderr: TextIO) -> None:
        super().__init__(stderr)
        self._progress = Progress()
        self._written = -math.inf

    def event(self, event: Event, now: float) -> None:
        self._progress.update(event, now)
        text = start_line(event) if event["type"] == "transfer-start" else event_line(event, self._progress, now)
        if text:
            self.print_line(text)
        if event["type"] == "transfer-start":
            self._written = now

    def tick(self, now: float) -> None:
        if 0 <= now - self._written < LINE_INTERVAL:
            return
        self._written = now
        snapshot = self._progress.snapshot(now)
        if snapshot.transfers:
            self.print_line(progress_line(snapshot))


class LiveDisplay:
    """Bars at the bottom of a terminal while transfers run: each transfer, and its nodes where these are few."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()
        self._live: Live | None = None
        self._drawn = -math.inf

    def event(self, event: Event, now: float) -> None:
        self._progress.update(event, now)
        text = event_line(event, self._progress, now)
        if text:
            self.print_line(text)
        if event["type"] in ("transfer-start", "transfer-end"):
            self._drawn = -math.inf
        self.tick(now)

    def tick(self, now: float) -> None:
        if 0 <= now - self._drawn < REFRESH_INTERVAL:
            return
        self._drawn = now
        snapshot = self._progress.snapshot(now)
        if not snapshot.transfers:
            self.close()
            return
        if self._live is None:
            from rich.live import Live

            # Nothing is redirected: stdout may be a pipe that carries data.
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(_bars(snapshot, now), refresh=True)

    def print_line(self, text: str) -> None:
        from rich.text import Text

        # As Text, since names and node sets hold brackets, which rich would read as markup.
        self._console.print(Text.from_ansi(text), soft_wrap=True)

    def close(self) -> None:
        if self._live is not None:
            # Live.stop draws once more, at full height; that would scroll a small terminal.
            self._live.update("")
            self._live.stop()
            self._live = None


def _bars(snapshot: Snapshot, now: float) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column(ratio=1)
    for _ in range(4):
        table.add_column(no_wrap=True, justify="right")

    def add(label: str, amount: Amount, last: str) -> None:
        if amount.total is None:
            bar = ProgressBar(total=None, animation_time=now)
        else:
            # In hundredths of a percent, so that an empty transfer has a full bar.
            bar = ProgressBar(total=10000, completed=10000 * (amount.fraction or 0.0))
        cells = [percent(amount), of_total(amount), human_rate(amount.rate, 1), last]
        table.add_row(Text(label), bar, *(Text(cell) for cell in cells))

    transfers = snapshot.transfers
    if len(transfers) > 1:
        add(f"{len(transfers)} transfers", snapshot, eta(snapshot))
    with_nodes = sum(len(transfer.nodes) for transfer in transfers) <= MAX_NODE_ROWS
    for transfer in transfers:
        add(printable(transfer.what), transfer, eta(transfer))
        for node in transfer.nodes if with_nodes else ():
            add(f"  {node.node}", node, node_state(node))
    return table
