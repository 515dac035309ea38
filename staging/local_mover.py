"""A mover on the command's own host, as a child process of the command."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from staging.mover.errors import Interrupted, from_wire
from staging.orders import Membership, complete

LINE_LIMIT = 64 << 20
END_SECONDS = 5


class LocalMover:
    """Orders in, events out; `next` gives them in order and raises the error that ended the mover."""

    def __init__(self, process: asyncio.subprocess.Process, membership: Membership, host: str) -> None:
        self._process = process
        self._member = membership
        self._host = host

    @classmethod
    async def start(cls, membership: Membership, host: str) -> LocalMover:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from the directory the user happens to be in
            "-m",
            "staging.mover",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,  # a terminal's ^C is for the command, which then tells the mover
        )
        return cls(process, membership, host)

    async def open(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send the opening order and wait for `opened`."""
        self.send(complete(order, self._member, self._host, ""))
        while True:
            event = await self.next()
            if event["event"] == "opened":
                return event

    def send(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode("ascii") + b"\n")

    async def next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Interrupted(f"the mover on this host ended unexpectedly ({await self._process.wait()})")
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "error":
            error = from_wire(event["error"])
            error.partial = bool(event["partial"])
            raise error
        return event

    async def end(self, order: dict[str, Any]) -> bool:
        """Give the last order and wait for the end; True when a resumable partial replica was left."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        partial = False
        try:
            async with asyncio.timeout(END_SECONDS):
                if self._process.returncode is None:
                    self.send(order)
                while line := await self._process.stdout.readline():
                    partial = partial or bool(json.loads(line).get("partial"))
        except TimeoutError:
            self._process.kill()
        finally:
            self._process.stdin.close()
            await self._process.wait()
        return partial
