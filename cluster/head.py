"""The head: Dask's scheduler, the one client, and the gateway, in one process.

    python -m cluster.head --dir DIR [--host ADDRESS] [--kind local|hosts] [--owner FD] [--service MODULE ...]

`--owner`: a pipe whose other end the starter holds; when that closes the head ends and removes the cluster's
directory, unless the starter has written `startup.RELEASED` before. `--service`: a module with `install(head)`, by
which the rooms above add what they serve.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import importlib
import os
import pwd
import secrets
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import attendance, embedded, pki, settings, startup
from cluster.attendance import Attendance
from cluster.credentials import Authority, Claims, request_digest
from cluster.fleet import Fleet, Secret
from cluster.gateway import Call, Caller, Gateway
from cluster.launch_request import ACTION, LaunchRequest
from cluster.layout import HeadInfo, Layout
from staging.mover.errors import StageError
from staging.mover.title import name_process

CREDENTIAL_SECONDS = 120
NODE_SECONDS = 10  # for the end of a node; less than addresses.LOSS_SECONDS, for a loss is no end
ANSWER_SECONDS = 2
LOCAL = "local"


class Head:
    """What a service may use: the fleet, the gateway, the authority that signs for users."""

    def __init__(
        self, layout: Layout, fleet: Fleet, gateway: Gateway, authority: Authority, host: str, kind: str
    ) -> None:
        self.layout = layout
        self.fleet = fleet
        self.gateway = gateway
        self.authority = authority
        self.host = host
        self.kind = kind
        self.started = time.time()
        self.best_rate = 0.0  # bytes/s that a node has got in a broadcast
        self.ending = asyncio.Event()
        self.ended = asyncio.Event()  # nothing of the nodes is left, as far as can be known
        self.answered = asyncio.Event()  # that was told to who asked for the end
        self.asked = False  # by a command
        self.orphaned = False
        self.attendance = Attendance(gateway)
        self._background: set[asyncio.Task[None]] = set()
        gateway.register("status", self._status)
        gateway.register("down", self._down)
        gateway.register("hello", self._hello)

    def credential(self, caller: Caller, nodes: Sequence[str], request: LaunchRequest) -> Secret:
        """A signed permission for the caller to have `request` launched on these nodes, once on each."""
        now = time.time()
        claims = Claims(
            uid=caller.uid,
            gid=caller.gid,
            groups=tuple(os.getgrouplist(user_name(caller), caller.gid)) if os.geteuid() == 0 else (caller.gid,),
            action=ACTION,
            nodes=tuple(nodes),
            digest=request_digest(request.to_mapping()),
            issued=now,
            expires=now + CREDENTIAL_SECONDS,
            nonce=secrets.token_hex(16),
        )
        return Secret(self.authority.sign(claims))

    async def _hello(self, call: Call) -> dict[str, Any]:
        """What a command needs first: the address under which nodes reach it, and a job number if it asks for one."""
        number = self._next_job() if call.request.get("new_job") else ""
        node = self.fleet.nodes().get(call.caller.node)
        return {"job": number, "host": node.address if node else self.host, "user": user_name(call.caller)}

    def _next_job(self) -> str:
        """A number that no job of this cluster has had, also before the head was started anew."""
        file = self.layout.jobs_file
        number = str(int(file.read_text()) + 1 if file.exists() else 1)
        file.write_text(number)
        return number

    async def _status(self, call: Call) -> dict[str, Any]:
        wanted = int(call.request.get("wait", 0))
        if call.request.get("probe"):
            await self.fleet.probe()
        try:
            async with asyncio.timeout(float(call.request.get("seconds", 0)) or None):
                async with self.fleet.changed:
                    await self.fleet.changed.wait_for(lambda: len(self.fleet.up()) >= wanted)
        except TimeoutError:
            pass  # the caller sees from the list who is not there
        nodes = [
            {"name": n.name, "address": n.address, "state": "up" if n.up else "down", "root": n.root, "pid": n.pid}
            for n in self.fleet.nodes().values()
        ]
        return {"pid": os.getpid(), "started": self.started, "nodes": nodes}

    async def _down(self, call: Call) -> dict[str, Any]:
        """Ends the cluster; the pids, on this machine, of what has not ended yet, and the nodes that did not end."""
        call.afterwards.append(self.answered.set)
        local = [n.pid for n in self.fleet.up()] if self.kind == LOCAL else []
        self.asked = True
        self.ending.set()
        await self.ended.wait()
        return {"pid": os.getpid(), "services": local, "left": self.attendance.names()}

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def hear_owner(self, owner: int) -> None:
        """The starter has released us, or is gone."""
        asyncio.get_running_loop().remove_reader(owner)
        if not os.read(owner, len(startup.RELEASED)):
            self.orphaned = True
            self.ending.set()


def user_name(caller: Caller) -> str:
    try:
        return pwd.getpwuid(caller.uid).pw_name
    except KeyError:
        return str(caller.uid)


@dataclass(frozen=True)
class Ended:
    """How the head came to its end: the services that were up on this machine, and whether its owner had gone."""

    services: list[int]
    orphaned: bool


async def run(layout: Layout, host: str, kind: str, owner: int | None, services: list[str]) -> Ended:
    """Serve until a `down` request, SIGTERM, or the end of the owner."""
    from distributed import Client

    from cluster.servers import StagingScheduler

    settings.apply(layout.base)
    files = pki.ensure(layout.keys, now=datetime.datetime.now(datetime.UTC))
    secured = settings.security(files)
    gateway = Gateway()
    try:
        async with (
            StagingScheduler(
                host=settings.host(host), port=0, protocol="tls", security=secured, dashboard=False
            ) as scheduler,
            Client(scheduler.address, asynchronous=True, security=secured) as client,
        ):
            head = Head(layout, Fleet(scheduler, client), gateway, Authority.ensure(layout.keys), host, kind)
            for name in services:
                importlib.import_module(name).install(head)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, head.ending.set)
            if owner is not None:
                loop.add_reader(owner, head.hear_owner, owner)
            await gateway.listen_unix(layout.head_socket)
            doors = await gateway.listen_tls(host, pki.server_context(files))
            layout.write_head(HeadInfo(os.getpid(), scheduler.address, host, doors, os.geteuid(), kind))
            await head.ending.wait()
            ended = Ended([node.pid for node in head.fleet.up()] if kind == LOCAL else [], head.orphaned)
            layout.head_file.unlink(missing_ok=True)
            await gateway.end_calls(spared=("down", attendance.OP))  # while what they started can still be ended
        # the scheduler is gone, which the nodes take as their end
        await head.attendance.all_gone(NODE_SECONDS)
        head.ended.set()
        if head.asked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await head.answered.wait()
        return ended
    finally:
        layout.head_file.unlink(missing_ok=True)
        await gateway.close()
        layout.head_socket.unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.head")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--kind", choices=("", "local", "hosts"), default="")
    parser.add_argument("--owner", type=int)
    parser.add_argument("--service", action="append", default=[])
    args = parser.parse_args(argv)
    layout = Layout(args.dir)
    name_process("stage-head")
    try:
        ended = asyncio.run(run(layout, args.host, args.kind, args.owner, args.service))
        if ended.orphaned:
            for pid in ended.services:
                startup.wait_gone(pid, NODE_SECONDS)
            embedded.remove(layout)
    except StageError as error:
        print(f"stage head: {error}", file=sys.stderr)  # noqa: T201 - this is its log
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
