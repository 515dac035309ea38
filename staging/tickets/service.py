"""The ticket queue behind a head's door: one connection holds one ticket and is told at once when its turn comes.

The queue itself is pure (`staging.tickets.queue`); this gives it a clock and connections.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cluster.gateway import Call
from cluster.head import user_name
from staging.mover.errors import LimitError, StageError, UsageError
from staging.tickets.model import Limits, Request, ticket_id
from staging.tickets.queue import TicketQueue

DEFAULT_LIMITS = Limits(small=4, large=2)


class TicketService:
    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._queue = TicketQueue(limits)
        self._news: dict[str, asyncio.Event] = {}
        self._purging: asyncio.TimerHandle | None = None

    async def serve(self, call: Call) -> dict[str, Any]:
        """Hold one ticket: tell its position until its turn, hear of progress, end with `done`.

        The command's lines are {"op": "alive", "bytes": N}, at least every `Limits.idle` seconds, and
        {"op": "done", "outcome": "ok"|"failed", "bytes": N}. One that goes away gives its place back.
        """
        ticket = self._ask(call)
        lines: asyncio.Queue[dict[str, Any] | StageError] = asyncio.Queue()
        hearing = asyncio.create_task(self._hear(call, lines, self._news[ticket]))
        copying = False
        told = -1
        try:
            while True:
                answer = self._queue.poll(ticket, time.monotonic())
                if answer.state == "gone":
                    raise LimitError("the ticket was purged: its command had been silent too long", "copy again")
                if answer.state == "ok" and not copying:
                    copying = True
                    call.tell({"type": "ticket", "state": "ok", "position": 0})
                elif answer.state == "wait" and answer.position != told:
                    told = answer.position
                    call.tell({"type": "ticket", "state": "wait", "position": told})
                self._news[ticket].clear()
                if lines.empty():
                    await self._pause(self._news[ticket], answer.sleep if answer.state == "wait" else None)
                while not lines.empty():
                    line = lines.get_nowait()
                    if isinstance(line, StageError):
                        raise line
                    if line.get("op") == "done":
                        self._queue.done(ticket, line["outcome"], int(line["bytes"]), time.monotonic())
                        return {}
                    self._queue.progress(ticket, int(line["bytes"]), time.monotonic())
        finally:
            hearing.cancel()
            self._queue.cancel(ticket, time.monotonic())
            del self._news[ticket]
            self._changed()

    def _ask(self, call: Call) -> str:
        fields = call.request["request"]
        request = Request(
            direction=fields["direction"],
            paths=tuple(fields["paths"]),
            bytes=fields["bytes"],
            recursive=bool(fields["recursive"]),
            user=user_name(call.caller),
            job=str(fields.get("job", "")),
        )
        ticket = ticket_id(request)
        if ticket in self._news:
            raise UsageError("this copy has a ticket already", "wait for the other command to end")
        self._news[ticket] = asyncio.Event()
        self._queue.ask(request, time.monotonic())
        self._changed()
        return ticket

    async def _hear(self, call: Call, lines: asyncio.Queue[dict[str, Any] | StageError], news: asyncio.Event) -> None:
        while True:
            try:
                lines.put_nowait(await call.receive())
            except StageError as error:
                lines.put_nowait(error)
            news.set()

    async def _pause(self, news: asyncio.Event, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            return

    def _changed(self) -> None:
        """Something may have moved: wake who was given a place, and be back when the next ticket has idled too long."""
        for ticket in self._queue.granted():
            if ticket in self._news:
                self._news[ticket].set()
        if self._purging is not None:
            self._purging.cancel()
            self._purging = None
        deadline = self._queue.next_deadline()
        if deadline is not None:
            self._purging = asyncio.get_running_loop().call_at(deadline, self._purge)

    def _purge(self) -> None:
        self._purging = None
        for ticket in self._queue.expire(time.monotonic()):
            if ticket in self._news:
                self._news[ticket].set()
        self._changed()
