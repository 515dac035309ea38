"""What a copying command shows while it works and says at its end: a display and a report fed by the same events."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from cluster.printing import Guard
from staging.display import Display, Mode, make_display
from staging.report import Report

TICK_SECONDS = 0.25


class Show:
    def __init__(self, display: Display, as_json: bool, talkative: bool) -> None:
        self.display = display
        self.as_json = as_json
        self.report = Report()
        self.printed = Guard("the progress")
        self._talkative = talkative

    def say(self, text: str) -> None:
        """A line for people, left out where they asked for none."""
        if self._talkative:
            self.line(text)

    def line(self, text: str) -> None:
        """A line for everybody."""
        self.printed(self.display.print_line, text)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take one event of docs/events.md."""
        self.report.update(event)
        self.printed(self.display.event, event, time.time())


@asynccontextmanager
async def show(mode: Mode, as_json: bool) -> AsyncIterator[Show]:
    """A display that ticks while the body runs and is taken down after it, also when the body fails.

    What cannot be printed stops nothing; `printed.error` has the reason.
    """
    display = make_display(mode, json=as_json, stderr=sys.stderr, stdout=sys.stdout, env=os.environ)

    async def tick() -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            shown.printed(display.tick, time.time())

    shown = Show(display, as_json, talkative=mode != "none" and not as_json)
    ticking = asyncio.create_task(tick())
    try:
        yield shown
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        shown.printed(display.close)
