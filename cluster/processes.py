"""The Dask task that is a remote process: it lives as long as the process does.

The process's stdout and stderr are TCP sockets straight to the command that launched it; nothing of ours is in between.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

from distributed import secede

from cluster.agent import current
from cluster.fleet import Secret
from cluster.launch_request import LaunchRequest
from cluster.stdio import STDIO_HASH, Stdio
from staging.mover.errors import StageError, Unreachable
from staging.mover.handshake import dial, set_timeouts
from staging.mover.wire import ProtocolError

CONNECT_SECONDS = 5


def run_process(stdio: Secret, rank: int, request: LaunchRequest, credential: Secret, target: str) -> dict[str, Any]:
    """Launch the process, wait for its end, and answer {"status": exit code or -signal} or {"error": wire form}."""
    secede()
    agent = current()
    try:
        out, err = (_connect(stdio.value, agent.node, rank, stream) for stream in ("stdout", "stderr"))
    except (OSError, ProtocolError) as error:
        return {"error": Unreachable(f"{agent.node} cannot reach the command: {error}").to_wire()}
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        launched = agent.launcher.launch(request, credential.value, (null, out.fileno(), err.fileno()))
    except StageError as error:
        return {"error": error.to_wire()}
    finally:
        os.close(null)
        out.close()
        err.close()

    def control(order: dict[str, Any]) -> None:
        if order["op"] == "signal":
            launched.signal(int(order["signal"]), int(order["grace"]))
        else:
            launched.kill()

    agent.add(target, control)
    try:
        return {"status": launched.wait()}
    except StageError as error:
        return {"error": error.to_wire()}
    finally:
        agent.remove(target)


def _connect(stdio: Stdio, node: str, rank: int, stream: str) -> socket.socket:
    key, run = bytes.fromhex(stdio.key), bytes.fromhex(stdio.run)
    sock = dial(stdio.host, stdio.port, key, run, STDIO_HASH, CONNECT_SECONDS, CONNECT_SECONDS)
    label = json.dumps({"node": node, "rank": rank, "stream": stream}).encode("ascii")
    sock.sendall(struct.pack("!H", len(label)) + label)
    set_timeouts(sock, 0, 0)  # from here on it is the process's, which waits as long as it likes
    return sock
