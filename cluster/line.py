"""The command's end of the door for commands that do several things at once (asyncio)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from cluster.door import door_path, no_head
from cluster.layout import Layout
from staging.mover.errors import Interrupted, from_wire

LINE_LIMIT = 64 << 20


class Line:
    """One request to the head. `async for` yields its events; what the `end` said is then in `closing`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.closing: dict[str, Any] = {}

    @classmethod
    async def open(cls, layout: Layout, request: dict[str, Any]) -> Line:
        """Connect and send the request; Unreachable where no head answers."""
        path = door_path(layout)
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
        except OSError as error:
            raise no_head(path, error) from None
        line = cls(reader, writer)
        line.say(request)
        return line

    def say(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n")

    def __aiter__(self) -> Line:
        return self

    async def __anext__(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except ConnectionError:
            line = b""
        if not line.endswith(b"\n"):
            raise Interrupted("the head went away")
        event: dict[str, Any] = json.loads(line)
        if event["type"] == "error" and "error" in event:
            raise from_wire(event["error"])
        if event["type"] == "end":
            self.closing = event
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """Hang up: the head cancels what the request had started."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return  # the head was faster


async def ask(layout: Layout, request: dict[str, Any]) -> dict[str, Any]:
    """A request that has one answer."""
    line = await Line.open(layout, request)
    try:
        async for _ in line:
            continue
        return line.closing
    finally:
        await line.close()
