"""How the head knows that nothing of a node is left on its host: the end of one connection.

The node's service makes the socket and keeps it open until it exits; its worker, which has TLS, connects it. No TLS
goodbye is sent, so the head sees the end when the last of the two has exited.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from dataclasses import asdict

from cluster.addresses import notice_loss
from cluster.gateway import Call, Caller, Gateway
from cluster.layout import HeadInfo
from staging.mover.errors import Unreachable

CONNECT_SECONDS = 10
OP = "attend"


class Attendance:
    """The head's side: the nodes whose services hold their connection. It serves the request of `attend`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gone: dict[str, asyncio.Event] = {}
        gateway.register(OP, self._serve)

    def names(self) -> list[str]:
        return sorted(self._gone)

    async def all_gone(self, seconds: float) -> None:
        """Wait for the end of all of them, but not longer than that."""
        waits = [asyncio.create_task(gone.wait()) for gone in self._gone.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=seconds)
            for wait in late:
                wait.cancel()

    async def _serve(self, call: Call) -> None:
        name = call.caller.node
        gone = self._gone[name] = asyncio.Event()
        try:
            await asyncio.Event().wait()  # cancelled at the connection's end
        finally:
            gone.set()
            if self._gone.get(name) is gone:  # and not a later service of that name
                del self._gone[name]


def unconnected(head: HeadInfo) -> socket.socket:
    """A socket for `attend`."""
    return socket.socket(socket.AF_INET6 if ":" in head.host else socket.AF_INET, socket.SOCK_STREAM)


def attend(sock: socket.socket, head: HeadInfo, context: ssl.SSLContext, node: str) -> ssl.SSLSocket:
    """Connect it and say whose it is; what comes back is to be kept and never closed. Raises Unreachable."""
    try:
        sock.settimeout(CONNECT_SECONDS)
        sock.connect((head.host, head.doors))
        notice_loss(sock)
        secured = context.wrap_socket(sock)
        lines = (asdict(Caller(head.uid, 0, node)), {"op": OP})
        secured.sendall(b"".join(json.dumps(line).encode("ascii") + b"\n" for line in lines))
    except OSError as error:
        raise Unreachable(
            f"cannot reach the head at {head.host} port {head.doors}: {error.strerror or error}",
            "give --address, or let this port range through the firewall",
        ) from None
    return secured
