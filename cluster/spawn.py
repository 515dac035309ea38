"""The head's part of running commands on nodes: one task a process, all killed when the command goes away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cluster import processes
from cluster.door import ENV_DOOR
from cluster.fleet import Node, Secret
from cluster.gateway import Call
from cluster.head import Head
from cluster.launch_request import LaunchRequest
from cluster.stdio import Stdio
from staging.mover.errors import StageError, UsageError, from_wire

SIGNAL_BASE = 128


def install(head: Head) -> None:
    async def serve(call: Call) -> dict[str, Any]:
        await Spawn(head, call).run()
        return {}

    head.gateway.register("spawn", serve)


class Spawn:
    """One run: the processes of one command line on several nodes."""

    def __init__(self, head: Head, call: Call) -> None:
        self._head = head
        self._call = call
        self._stdio = Secret(Stdio(**call.request["stdio"]))
        self._specs: list[dict[str, Any]] = call.request["processes"]
        self._live: dict[str, Node] = {}

    async def run(self) -> None:
        """Start all, tell each one's end, and return when all have ended."""
        nodes = self._head.fleet.known([str(spec["node"]) for spec in self._specs])
        started = [asyncio.create_task(self._one(n, spec)) for n, spec in zip(nodes, self._specs, strict=True)]
        hearing = asyncio.create_task(self._hear())
        everything = asyncio.create_task(_all(started))
        try:
            await asyncio.wait({everything, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                hearing.result()
            await everything
        finally:
            await asyncio.shield(self._kill())
            for task in (everything, hearing, *started):
                task.cancel()
            await asyncio.gather(everything, hearing, *started, return_exceptions=True)

    async def _one(self, node: Node, spec: dict[str, Any]) -> None:
        target = f"{self._stdio.value.run}/{spec['rank']}"
        try:
            request = LaunchRequest.from_mapping({"kind": "command", **spec})
            request = replace(request, env=_at(node, request.env))
            credential = self._head.credential(self._call.caller, [node.name], request)
            self._live[target] = node
            label = str(spec["argv"][0]).rsplit("/", 1)[-1]
            reply = await self._head.fleet.call(
                node, label, processes.run_process, self._stdio, spec["rank"], request, credential, target
            )
            if "error" in reply:
                raise from_wire(reply["error"])
        except StageError as error:
            self._call.tell({"type": "process-failed", "node": node.name, "error": error.to_wire()})
        else:
            status = int(reply["status"])
            code = status if status >= 0 else SIGNAL_BASE - status
            self._call.tell({"type": "exit", "node": node.name, "code": code})
        finally:
            self._live.pop(target, None)

    async def _hear(self) -> None:
        """The command may pass signals on; its going away ends the run."""
        while True:
            line = await self._call.receive()
            if line.get("op") != "signal":
                raise UsageError(f"a run does not know {line.get('op')!r}")
            order = {"op": "signal", "signal": int(line["signal"]), "grace": int(line.get("grace", 0))}
            await self._order(order)

    async def _kill(self) -> None:
        await self._order({"op": "kill"})

    async def _order(self, order: dict[str, Any]) -> None:
        fleet = self._head.fleet
        orders = [fleet.control(node, target, order) for target, node in self._live.items()]
        await asyncio.gather(*orders, return_exceptions=True)


def _at(node: Node, env: Mapping[str, str]) -> dict[str, str]:
    """A job's environment with what may differ from host to host: the node's own door, and where our commands are."""
    if not env.get(ENV_DOOR) or not node.door:
        return dict(env)
    path = env.get("PATH", "").split(os.pathsep)
    return {**env, ENV_DOOR: node.door, "PATH": os.pathsep.join([*path, *{node.programs}.difference(path)])}


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)
