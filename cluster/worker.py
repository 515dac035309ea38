"""A node's Dask worker: it belongs to the staging cluster, bears the node's name, and is tuned to wait cheaply."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster import agent, pki, settings
from cluster.fleet import CONTROL_OP
from cluster.gateway import Caller, peer_of
from cluster.launch_client import LaunchClient
from cluster.layout import HeadInfo, Layout

HEAD_SECONDS = 30
RELAY_BYTES = 1 << 16


async def run(
    layout: Layout, name: str, address: str, root: str, service_pid: int, launcher: socket.socket, ready: int | None
) -> None:
    """Join the head's cluster, say so on `ready`, and serve until the head goes away or SIGTERM comes."""
    from cluster.servers import StagingWorker

    settings.apply(layout.base)
    files = pki.ensure(layout.keys, now=datetime.datetime.now(datetime.UTC))
    head = await _find_head(layout)
    client = LaunchClient(launcher)
    node = agent.Agent(name, address, root, client)
    agent.install(node)

    async def describe(_: Any) -> dict[str, Any]:
        return {"address": address, "root": root, "pid": service_pid}

    async def control(target: str, order: str) -> None:
        # an order may write to a mover's pipe: never on this loop
        await asyncio.to_thread(node.control, target, json.loads(order))

    worker = StagingWorker(
        head.scheduler,
        name=name,
        host=address,
        nthreads=settings.WORKER_THREADS,
        memory_limit=0,
        resources={"stage": settings.STAGE_SLOTS},
        local_directory=str(layout.node(name) / "dask"),
        dashboard=False,
        death_timeout=HEAD_SECONDS,
        security=settings.security(files),
        startup_information={"stage": describe},
    )
    worker.handlers[CONTROL_OP] = control
    node.attach(worker)
    door = await _open_door(layout.door(name), head, files, name)  # first: a node that has joined has its door
    try:
        async with worker:
            if ready is not None:
                with contextlib.suppress(BrokenPipeError):  # whoever started us does not wait
                    os.write(ready, b"up\n")
                os.close(ready)
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            loop.add_signal_handler(signal.SIGTERM, ended.set)
            gone = worker.finished()  # type: ignore[no-untyped-call]
            waits = [asyncio.ensure_future(ended.wait()), asyncio.ensure_future(gone)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
    finally:
        door.close()
        layout.door(name).unlink(missing_ok=True)
        client.close()


async def _find_head(layout: Layout) -> HeadInfo:
    """The announced head; nodes and head may be started at the same time."""
    async with asyncio.timeout(HEAD_SECONDS):
        while not layout.head_file.exists():  # noqa: ASYNC110 - a file has no event to wait for
            await asyncio.sleep(0.02)
    return layout.read_head()


async def _open_door(path: Path, head: HeadInfo, files: pki.TlsFiles, name: str) -> asyncio.Server:
    """The node's own door: each connection is passed on to the head, after a line that names the caller."""
    context = pki.client_context(files)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = peer_of(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(head.host, head.doors, ssl=context)
        except OSError:
            writer.close()  # the command sees an end without an answer and says so
            return
        named = Caller(caller.uid, caller.gid, name)
        far_writer.write(json.dumps(asdict(named)).encode() + b"\n")
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer), return_exceptions=True)

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(relay, path)
    path.chmod(0o600)
    return server


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(RELAY_BYTES):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
