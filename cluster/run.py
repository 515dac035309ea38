"""The command's part of running processes on nodes: listen for their output, have them started, hear how they end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import secrets
import signal
import struct
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.launch_request import LaunchRequest
from cluster.layout import Layout
from cluster.line import Line
from cluster.output import Output
from cluster.stdio import STDIO_HASH, Stdio
from staging.mover import wire
from staging.mover.digests import same

HANDSHAKE_SECONDS = 5
DRAIN_SECONDS = 5
CHUNK = 1 << 18


@dataclass(frozen=True)
class Process:
    """One process to run: where, its number in the run, and what the launcher is asked for."""

    node: str
    rank: int
    request: LaunchRequest


class Listener:
    """Accepts the stdout and stderr of a run's processes and feeds them to an `Output`."""

    def __init__(self, output: Output, streams: int) -> None:
        self._output = output
        self._left = streams
        self._run = secrets.token_bytes(16)
        self._key = secrets.token_bytes(32)
        self._drained = asyncio.Event()
        self._heard = 0.0
        self._accepted: set[asyncio.Task[None]] = set()

    async def start(self, host: str) -> Stdio:
        self._server = await asyncio.start_server(self._accept, host, 0, limit=CHUNK)
        port = self._server.sockets[0].getsockname()[1]
        return Stdio(self._run.hex(), host, port, self._key.hex())

    async def drain(self) -> None:
        """Wait for the end of every stream; one that has been silent for too long after the exit is left behind."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        while not self._drained.is_set():
            left = self._heard + DRAIN_SECONDS - loop.time()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._drained.wait()

    async def close(self) -> None:
        """Listen no more, and leave the streams that are still open."""
        self._server.close()
        for task in self._accepted:
            task.cancel()
        await asyncio.gather(*self._accepted, return_exceptions=True)

    def less(self, streams: int) -> None:
        """So many streams have ended, or will never come."""
        self._left -= streams
        if self._left <= 0:
            self._drained.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._accepted.add(task)
        try:
            await self._take(reader, writer)
        except asyncio.CancelledError:
            writer.close()  # by `close`, which waits for this
        finally:
            self._accepted.discard(task)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await self._admit(reader, writer)
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                label = json.loads(await reader.readexactly(size))
                node, stream = str(label["node"]), str(label["stream"])
        except (OSError, EOFError, ValueError, TimeoutError, wire.ProtocolError):
            writer.close()  # a stranger is told nothing
            return
        try:
            while data := await reader.read(CHUNK):
                self._output.feed(node, stream, data)
                self._heard = asyncio.get_running_loop().time()
        except ConnectionError:
            pass  # its node is gone; the head says so
        finally:
            writer.close()
            self.less(1)

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.readexactly(wire.HELLO.size)
        wire.read_hello(hello, self._run)
        nonce = os.urandom(wire.NONCE_SIZE)
        writer.write(wire.challenge(STDIO_HASH, self._key, hello, nonce))
        answer = await reader.readexactly(wire.ANSWER_SIZE)
        if not same(answer, wire.proof(STDIO_HASH, self._key, b"dialer", hello, nonce)):
            raise wire.ProtocolError("a stranger")


def umask() -> int:
    """This process's umask, which what it runs on nodes is to have too."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class Grace:
    """What a cancelled run leaves its processes between TERM and KILL: whole seconds, or less once it is `cut`."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._cut = asyncio.Event()

    def cut(self) -> None:
        self._cut.set()

    async def spend(self, line: Line, hear: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have the processes of `line` asked to end, and `hear` from them until they have, or until it is over."""
        line.say({"op": "signal", "signal": int(signal.SIGTERM), "grace": self.seconds})
        waits = [asyncio.create_task(hear()), asyncio.create_task(self._cut.wait())]
        try:
            await asyncio.wait(waits, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def run(
    layout: Layout,
    host: str,
    processes: Sequence[Process],
    output: Output,
    tell: Callable[[dict[str, Any]], None],
    grace: Grace | None = None,
) -> None:
    """Run all the processes to their end; `tell` gets an `exit` or `process-failed` event for each.

    Cancelled, it kills them: at once, or with `grace` some time after they were asked to end.
    """
    listener = Listener(output, 2 * len(processes))
    stdio = await listener.start(host)
    specs = [{"node": p.node, "rank": p.rank, **p.request.to_mapping()} for p in processes]
    line: Line | None = None

    async def hear(line: Line) -> None:
        async for event in line:
            if event["type"] == "process-failed":
                listener.less(2)
            tell(event)
        await listener.drain()

    try:
        line = await Line.open(layout, {"op": "spawn", "stdio": asdict(stdio), "processes": specs})
        try:
            await hear(line)
        except asyncio.CancelledError:
            if grace is not None and grace.seconds:
                await grace.spend(line, functools.partial(hear, line))
            raise
    finally:
        await listener.close()
        if line is not None:
            await line.close()
        output.finish()
