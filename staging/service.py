"""What staging adds to a head: broadcasts, publications, and on the embedded cluster the ticket queue."""

from __future__ import annotations

from typing import Any

from cluster.gateway import Call
from cluster.head import Head
from staging.broadcast import Broadcast
from staging.publish import publish
from staging.tickets.service import TicketService


def install(head: Head) -> None:
    """Register the requests that staging serves."""

    async def serve_broadcast(call: Call) -> dict[str, Any]:
        await Broadcast(head, call).run()
        return {}

    async def serve_publish(call: Call) -> dict[str, Any]:
        return await publish(head, call)

    head.gateway.register("broadcast", serve_broadcast)
    head.gateway.register("publish", serve_publish)
    head.gateway.register("ticket", TicketService().serve)
