"""How the head knows that nothing of a node is left on its host: the end of one connection.

The node's service makes the socket and keeps it open until it exits; its worker, which has TLS, connects it. No TLS
goodbye is sent, so the head sees the end when the last of the two has exited.
"""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import asdict

from cluster.gateway import Caller, notice_loss
from cluster.layout import HeadInfo
from staging.mover.errors import Unreachable

CONNECT_SECONDS = 10


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
        lines = (asdict(Caller(head.uid, 0, node)), {"op": "attend"})
        secured.sendall(b"".join(json.dumps(line).encode("ascii") + b"\n" for line in lines))
    except OSError as error:
        raise Unreachable(
            f"cannot reach the head at {head.host} port {head.doors}: {error.strerror or error}",
            "give --address, or let this port range through the firewall",
        ) from None
    return secured
