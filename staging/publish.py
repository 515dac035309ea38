"""The head's part of a copy from a node to the command's host: open a source there, and let it go afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.fleet import Secret
from cluster.gateway import Call
from cluster.head import Head
from cluster.launch_request import LaunchRequest
from staging import tasks
from staging.mover.errors import Unreachable, UsageError, from_wire
from staging.orders import Membership, SourceOrder, mover_environment

OPEN_SECONDS = 60


async def publish(head: Head, call: Call) -> dict[str, Any]:
    """Publish files of one node until the command has fetched them.

    The command gets an `opened` event, says `seal` when it has all blocks, gets `root`, and says `finish`.
    """
    request = call.request
    member = Membership(str(request["transfer"]), str(request["key"]))
    sources = tuple(str(s) for s in request["sources"])
    order = SourceOrder(sources, bool(request["contents"])).to_order()
    launch = LaunchRequest((), mover_environment(order), "/", kind="mover")
    (node,) = head.fleet.known([str(request["node"])])
    label = str(request["label"])
    root: asyncio.Task[dict[str, Any]] | None = None
    receiving: asyncio.Task[dict[str, Any]] | None = None
    op = "abort"
    try:
        credential = head.credential(call.caller, [node.name], launch)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                opened = await head.fleet.call(node, label, tasks.open_mover, Secret(member), order, launch, credential)
        except TimeoutError:
            raise Unreachable(f"{node.name} did not open its files within {OPEN_SECONDS} s") from None
        if opened["event"] == "error":
            raise from_wire(opened["error"])
        call.tell({"type": "opened", "endpoint": opened["endpoint"], "manifest": opened["manifest"]})
        for path in opened["skipped"]:
            call.tell({"type": "note", "node": node.name, "message": f"{path} is no file, directory or link; left out"})
        root = asyncio.create_task(head.fleet.call(node, label, tasks.run_mover, member.transfer, {}, "root"))
        while True:
            receiving = receiving or asyncio.create_task(call.receive())
            await asyncio.wait({receiving, *(() if root is None else (root,))}, return_when=asyncio.FIRST_COMPLETED)
            if root is not None and root.done():
                event, root = root.result(), None
                if event["event"] == "error":
                    raise from_wire(event["error"])
                call.tell({"type": "root", "digest": event["digest"]})
            if receiving.done():
                line, receiving = receiving.result(), None
                if line.get("op") == "seal":
                    await head.fleet.control(node, member.transfer, {"op": "seal"})
                elif line.get("op") == "finish":
                    op = "finish"
                    return {}
                else:
                    raise UsageError(f"a publication does not know {line.get('op')!r}")
    finally:
        await asyncio.shield(head.fleet.control(node, member.transfer, {"op": op, "keep": False}))
        left = [task for task in (root, receiving) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
