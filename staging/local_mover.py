"""A mover on the command's own host, as a child process of the command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from typing import Any

from staging import mover_process
from staging.mover.errors import Interrupted, from_wire
from staging.orders import Membership, complete

LINE_LIMIT = 64 << 20
END_SECONDS = 5


class LocalMover:
    """Orders in, events out; `next` gives them in order and raises the error that ended the mover."""

    def __init__(
        self, process: subprocess.Popen[bytes], events: asyncio.StreamReader, membership: Membership, host: str
    ) -> None:
        self._process = process
        self._events = events
        self._member = membership
        self._host = host

    @classmethod
    async def start(cls, membership: Membership, host: str) -> LocalMover:
        process = mover_process.take()
        events = asyncio.StreamReader(LINE_LIMIT)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(events), process.stdout)
        return cls(process, events, membership, host)

    async def open(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send the opening order and wait for `opened`."""
        self.send(complete(order, self._member, self._host, ""))
        while True:
            event = await self.next()
            if event["event"] == "opened":
                return event

    def send(self, order: dict[str, Any]) -> None:
        """Write an order; one to a mover that has ended goes nowhere, its end is told by `next`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode("ascii") + b"\n")

    async def next(self) -> dict[str, Any]:
        line = await self._events.readline()
        if not line:
            code = await asyncio.to_thread(self._process.wait)
            raise Interrupted(f"the mover on this host ended unexpectedly ({code})")
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "error":
            error = from_wire(event["error"])
            error.partial = bool(event["partial"])
            raise error
        return event

    async def end(self, order: dict[str, Any]) -> bool:
        """Give the last order and wait for the end; True when a resumable partial replica was left."""
        partial = False
        try:
            async with asyncio.timeout(END_SECONDS):
                if self._process.poll() is None:
                    self.send(order)
                while line := await self._events.readline():
                    partial = partial or bool(json.loads(line).get("partial"))
        except TimeoutError:
            self._process.kill()
        finally:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await asyncio.to_thread(self._process.wait)
        return partial

    def leave(self) -> None:
        """End a source from which everybody has everything: it has nothing to put in order."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.stdin.close()
        self._process.wait()
