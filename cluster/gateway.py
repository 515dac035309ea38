"""The commands' one door: JSON lines over a unix socket; nodes pass their own door's connections on over TLS.

The kernel names the caller of the unix socket. A handler serves one request; when the command goes away its handler
is cancelled, and with it what it had started.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cluster.addresses import notice_loss
from staging.mover.errors import Interrupted, RefusedError, StageError, UsageError, describe

LOG = logging.getLogger(__name__)
T = TypeVar("T")

LINE_LIMIT = 64 << 20
FIRST_LINE_SECONDS = 10
MAX_LINES = 64  # of one command, not yet looked at by its handler


@dataclass(frozen=True)
class Caller:
    uid: int
    gid: int
    node: str = ""  # "" for a command on the head's own host


class Call:
    """One request: its caller, its further lines, and the way to answer."""

    def __init__(self, request: dict[str, Any], caller: Caller, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.caller = caller
        self.afterwards: list[Callable[[], None]] = []  # called once the answer has been sent
        self._writer = writer
        self._lines: asyncio.Queue[bytes] = asyncio.Queue(MAX_LINES)

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event without waiting for the command to read it."""
        self._writer.write(json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n")

    async def receive(self) -> dict[str, Any]:
        """The command's next line; UsageError for one that is no JSON object."""
        message = _parse(await self._lines.get())
        if not isinstance(message, dict):
            raise UsageError("a line of the door protocol is a JSON object")
        return message

    async def hear(self, reader: asyncio.StreamReader) -> None:
        """Take the command's lines in until it goes away."""
        while (line := await reader.readline()).endswith(b"\n"):
            await self._lines.put(line)


Handler = Callable[[Call], Awaitable[dict[str, Any] | None]]


class Gateway:
    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._servers: list[asyncio.Server] = []
        self._active: dict[asyncio.Task[None], str] = {}  # and the op of its request, once that is known

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
        await self.end_calls()

    async def end_calls(self, spared: Collection[str] = ()) -> None:
        """Cancel what is being served, but for requests with these ops, and wait for it."""
        ended = [task for task, op in self._active.items() if op not in spared]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    async def _local(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._tracked(reader, writer, peer_of(writer))

    async def _forwarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        notice_loss(writer.get_extra_info("socket"))
        await self._tracked(reader, writer, None)

    async def _tracked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._active[task] = ""
        try:
            await self._converse(task, reader, writer, caller)
        except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
            pass  # the command is gone, or we are: there is nobody to tell
        finally:
            del self._active[task]
            writer.close()

    async def _converse(
        self,
        task: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        caller: Caller | None,
    ) -> None:
        closing: dict[str, Any]
        call: Call | None = None
        try:
            async with asyncio.timeout(FIRST_LINE_SECONDS):
                if caller is None:
                    caller = Caller(**_parse(await reader.readline()))
                first = await reader.readline()  # all that was sent, or our answer would be lost in a reset
                if caller.uid != os.geteuid():
                    raise RefusedError(f"this cluster belongs to uid {os.geteuid()}, not to you", "start your own")
                request = _parse(first)
                handler = self._handlers.get(request["op"])
                self._active[task] = request["op"]
            if handler is None:
                raise UsageError(f"the head does not know the request {request['op']!r}", "is it another version?")
            call = Call(request, caller, writer)
            fields = await _until_gone(handler(call), call.hear(reader))
            closing = {"type": "end", **(fields or {})}
        except StageError as error:
            closing = {"type": "error", "error": error.to_wire()}
        except (ValueError, KeyError, TypeError, TimeoutError) as error:
            closing = {"type": "error", "error": UsageError(f"a request that cannot be read: {error!r}").to_wire()}
        except OSError as error:
            closing = {"type": "error", "error": StageError(describe(error)[0]).to_wire()}
        except Exception as error:
            LOG.exception("a request failed")
            closing = {"type": "error", "error": StageError(describe(error)[0]).to_wire()}
        try:
            writer.write(json.dumps(closing).encode("ascii") + b"\n")
            await writer.drain()
        finally:
            for action in call.afterwards if call is not None else ():
                action()


def peer_of(writer: asyncio.StreamWriter) -> Caller:
    """Who is at the other end of a unix socket, by SO_PEERCRED."""
    sock = writer.get_extra_info("socket")
    _, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Caller(uid, gid)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("a line of the door protocol is JSON") from None


async def _until_gone(work: Awaitable[T], hearing: Awaitable[None]) -> T:
    """What `work` returns; it is cancelled when the command goes away, which ends `hearing`."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(hearing)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Interrupted("the command went away")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
