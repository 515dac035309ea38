"""A node's Dask worker: it belongs to the staging cluster, bears the node's name, and is tuned to wait cheaply."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster import agent, attendance, pki, settings
from cluster.fleet import CONTROL_OP
from cluster.gateway import Caller, peer_of
from cluster.launch_client import LaunchClient
from cluster.layout import HeadInfo, Layout
from cluster.startup import NodeSpec
from staging.mover.errors import Unreachable

HEAD_SECONDS = 30
RELAY_BYTES = 1 << 16


@dataclass(frozen=True)
class Service:
    """The node service as its worker needs it: `ready` is told once the node has joined; `presence` see attendance."""

    pid: int
    launcher: socket.socket
    ready: int | None = None
    presence: socket.socket | None = None


async def run(layout: Layout, spec: NodeSpec, service: Service) -> None:
    """Join the head's cluster and serve until the head goes away or SIGTERM comes."""
    from cluster.servers import StagingWorker

    if spec.root and not layout.marker_file.exists():  # whoever started us was killed, and all was removed
        raise Unreachable(f"the cluster in {layout.base} is gone")
    settings.apply(layout.base)
    files = pki.ensure(layout.keys, now=datetime.datetime.now(datetime.UTC))
    head = await _find_head(layout)
    presence = None
    if service.presence is not None:
        context = pki.client_context(files)
        presence = await asyncio.to_thread(attendance.attend, service.presence, head, context, spec.name)
    client = LaunchClient(service.launcher)
    node = agent.Agent(spec.name, spec.address, spec.root, client)
    agent.install(node)

    async def describe(_: Any) -> dict[str, Any]:
        return {
            "address": spec.address,
            "root": spec.root,
            "pid": service.pid,
            "door": str(layout.door(spec.name)),
            "programs": os.path.dirname(sys.executable),
        }

    async def control(target: str, order: str) -> None:
        # an order may write to a mover's pipe: never on this loop
        await asyncio.to_thread(node.control, target, json.loads(order))

    worker = StagingWorker(
        head.scheduler,
        name=spec.name,
        host=settings.host(spec.address),
        nthreads=settings.WORKER_THREADS,
        memory_limit=0,
        resources={"stage": settings.STAGE_SLOTS},
        local_directory=str(layout.node(spec.name) / "dask"),
        dashboard=False,
        death_timeout=HEAD_SECONDS,
        security=settings.security(files),
        startup_information={"stage": describe},
    )
    worker.handlers[CONTROL_OP] = control
    node.attach(worker)
    # first: a node that has joined has its door
    door = await _open_door(layout.door(spec.name), head, files, spec.name)
    try:
        async with worker:
            if service.ready is not None:
                with contextlib.suppress(BrokenPipeError):  # whoever started us does not wait
                    os.write(service.ready, b"up\n")
                os.close(service.ready)
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
        layout.door(spec.name).unlink(missing_ok=True)
        client.close()
        del presence  # kept until here


async def _find_head(layout: Layout) -> HeadInfo:
    """The announced head; nodes and head may be started at the same time."""
    async with asyncio.timeout(HEAD_SECONDS):
        while not layout.head_file.exists():
            if not layout.base.exists():
                raise Unreachable(f"the cluster in {layout.base} is gone")
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
