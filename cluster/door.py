"""The command's end of the door: a few lines of JSON with the head. Standard library only, so that it starts fast."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.layout import Layout
from staging.mover.errors import Interrupted, StageError, Unreachable, from_wire

ENV_DOOR = "STAGE_DOOR"


def door_path(layout: Layout) -> Path:
    """The socket to use: on a node, inside a job, the node's own door."""
    named = os.environ.get(ENV_DOOR)
    return Path(named) if named else layout.head_socket


class Door:
    """One request to the head: `events()` yields until the end, whose fields are then in `closing`."""

    def __init__(self, layout: Layout, request: dict[str, Any], timeout: float | None = 30) -> None:
        self.path = door_path(layout)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        self.closing: dict[str, Any] = {}
        try:
            self._socket.connect(str(self.path))
            self.say(request)
        except OSError as error:
            self._socket.close()
            raise no_head(self.path, error) from None
        self._file = self._socket.makefile("rb")

    def say(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode("ascii") + b"\n")

    def events(self) -> Iterator[dict[str, Any]]:
        try:
            for line in self._file:
                if not line.endswith(b"\n"):
                    break
                event = json.loads(line)
                if event["type"] == "error" and "error" in event:
                    raise from_wire(event["error"])
                if event["type"] == "end":
                    self.closing = event
                    return
                yield event
        except TimeoutError:
            raise Unreachable("the head does not answer") from None
        finally:
            self.close()
        raise Interrupted("the head went away")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def ask(layout: Layout, request: dict[str, Any], timeout: float | None = 30) -> dict[str, Any]:
    """A request that has one answer: the fields of its `end`."""
    door = Door(layout, request, timeout)
    for _ in door.events():
        continue
    return door.closing


def no_head(path: Path, error: OSError) -> StageError:
    """Word the failure to reach a head."""
    if isinstance(error, FileNotFoundError):
        return Unreachable(f"no cluster is running ({path} is not there)", "start one with `stage up --local 4`")
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"the cluster at {path.parent} has ended", "start it again with `stage up --local N`")
    return Unreachable(f"cannot reach the head at {path}: {error.strerror or error}", "see `stage status`")
