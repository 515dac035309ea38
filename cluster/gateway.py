"""The commands' one door: JSON lines over a unix socket; nodes pass their own door's connections on over TLS.

The kernel names the caller of the unix socket. A handler serves one request; when the command goes away its handler
is cancelled, and with it what it had started.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staging.mover.errors import Interrupted, RefusedError, StageError, UsageError, describe

LINE_LIMIT = 64 << 20
FIRST_LINE_SECONDS = 10


@dataclass(frozen=True)
class Caller:
    uid: int
    gid: int
    node: str = ""  # "" for a command on the head's own host


class Call:
    """One request: its caller, its further lines, and the way to answer."""

    def __init__(
        self, request: dict[str, Any], caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.request = request
        self.caller = caller
        self._reader = reader
        self._writer = writer

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event without waiting for the command to read it."""
        self._writer.write(json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n")

    async def send(self, event: dict[str, Any]) -> None:
        self.tell(event)
        await self._writer.drain()

    async def receive(self) -> dict[str, Any]:
        """The command's next line; Interrupted when it went away."""
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise Interrupted("the command went away")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise UsageError("a line of the door protocol is a JSON object")
        return message


Handler = Callable[[Call], Awaitable[dict[str, Any] | None]]


class Gateway:
    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._servers: list[asyncio.Server] = []
        self._active: set[asyncio.Task[None]] = set()

    def register(self, op: str, handler: Handler) -> None:
        """Serve requests with this `op`; what the handler returns goes into the closing `end` event."""
        self._handlers[op] = handler

    async def listen_unix(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._local, path, limit=LINE_LIMIT)
        os.chmod(path, 0o600)
        self._servers.append(server)

    async def listen_tls(self, host: str, context: ssl.SSLContext) -> int:
        """Listen for the nodes' doors; the port."""
        server = await asyncio.start_server(self._forwarded, host, 0, ssl=context, limit=LINE_LIMIT)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._active):
            task.cancel()
        await asyncio.gather(*self._active, return_exceptions=True)

    async def _local(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._tracked(reader, writer, peer_of(writer))

    async def _forwarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._tracked(reader, writer, None)

    async def _tracked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._active.add(task)
        try:
            await self._converse(reader, writer, caller)
        except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
            pass  # the command is gone, or we are: there is nobody to tell
        finally:
            self._active.discard(task)
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller | None
    ) -> None:
        closing: dict[str, Any]
        try:
            async with asyncio.timeout(FIRST_LINE_SECONDS):
                if caller is None:
                    caller = Caller(**json.loads(await reader.readline()))
                if caller.uid != os.geteuid():
                    raise RefusedError(f"this cluster belongs to uid {os.geteuid()}, not to you", "start your own")
                request = json.loads(await reader.readline())
                handler = self._handlers.get(request["op"])
            if handler is None:
                raise UsageError(f"the head does not know the request {request['op']!r}", "is it another version?")
            closing = {"type": "end", **(await handler(Call(request, caller, reader, writer)) or {})}
        except StageError as error:
            closing = {"type": "error", "error": error.to_wire()}
        except (ValueError, KeyError, TypeError, TimeoutError) as error:
            closing = {"type": "error", "error": UsageError(f"a request that cannot be read: {error!r}").to_wire()}
        except OSError as error:
            closing = {"type": "error", "error": StageError(describe(error)[0]).to_wire()}
        writer.write(json.dumps(closing).encode("ascii") + b"\n")
        await writer.drain()


def peer_of(writer: asyncio.StreamWriter) -> Caller:
    """Who is at the other end of a unix socket, by SO_PEERCRED."""
    sock = writer.get_extra_info("socket")
    _, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Caller(uid, gid)


async def until_gone(call: Call, work: Awaitable[Any]) -> Any:
    """Await `work`, but cancel it as soon as the command goes away or says `stop`."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(call.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Interrupted("the command stopped it")
    finally:
        for one in (task, gone):
            if not one.done():
                one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
