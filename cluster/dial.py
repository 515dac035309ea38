"""Starting the node service at a socket that waits to be activated (cluster.activated), instead of by ssh."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from cluster import pki
from cluster.addresses import notice_loss, resolve
from cluster.hosts import Host
from cluster.kit import MAX_ANSWER, pid_in
from cluster.startup import START_SECONDS
from staging.mover.errors import RefusedError, Unreachable


class ByDial:
    """The way to hosts that listen on `port`, for a holder of the site's keys in the directory `keys`."""

    def __init__(self, port: int, keys: Path, seconds: float) -> None:
        self.port = port
        self.seconds = seconds
        self.context = pki.client_context(pki.existing(keys, now=datetime.datetime.now(datetime.UTC)))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._closed = False

    def find(self, host: Host) -> DialPlace:
        return DialPlace(self, host.target, resolve(host.target))

    def add(self, sock: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                self._open.append(sock)
                return
        sock.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for sock in self._open:
                sock.close()


@dataclass(frozen=True)
class DialPlace:
    way: ByDial
    name: str
    address: str

    def open(self) -> DialSession:
        where = f"{self.name} port {self.way.port}"
        remedy = "is longshore-node.socket started there?"
        try:
            sock = socket.create_connection((self.address, self.way.port), self.way.seconds)
            try:
                notice_loss(sock)
                secured = self.way.context.wrap_socket(sock)
            except BaseException:
                sock.close()
                raise
        except ssl.SSLError as error:
            raise RefusedError(f"{where} has other keys: {error.reason}", "install the same ones there") from None
        except TimeoutError:
            raise Unreachable(f"no answer from {where} within {self.way.seconds:g} s", remedy) from None
        except OSError as error:
            raise Unreachable(f"cannot reach {where}: {error.strerror or error}", remedy) from None
        self.way.add(secured)
        return DialSession(secured, where)


class DialSession:
    def __init__(self, sock: ssl.SSLSocket, where: str) -> None:
        self._sock = sock
        self._where = where

    def start(self, payload: bytes) -> int:
        try:
            self._sock.settimeout(START_SECONDS)
            self._sock.sendall(payload)
            with self._sock.makefile("rb") as file:
                line = file.readline(MAX_ANSWER)
        except OSError as error:
            raise Unreachable(f"the connection to {self._where} was lost: {error}") from None
        if not line.endswith(b"\n"):
            raise RefusedError(f"{self._where} does not take our keys", "install the same ones on both sides")
        return pid_in(json.loads(line))

    def close(self) -> None:
        self._sock.close()
