"""Delay by hand, for kernels without netem: frames wait in a process between a host's port and the bridge.

Packet sockets with virtio headers carry large TCP segments whole, so a stream costs few system calls; large UDP
segments pass from Linux 6.2 on. Unlike TUN they need no device file, which only root may open on many machines.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
BUFFER = 16 << 20
LARGEST = 1 << 17  # a segment of 64 KiB and its headers
TURN = 64  # frames taken from one side before the other has its turn


@dataclass
class Way:
    """Frames on their way from one device to another, with the times at which they are due."""

    source: socket.socket
    target: socket.socket
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self, delay: float) -> None:
        with contextlib.suppress(OSError):  # nothing more, or the device is gone
            for _ in range(TURN):
                frame = self.source.recv(LARGEST)
                self.waiting.append((time.monotonic() + delay, frame))

    def give(self, now: float) -> None:
        while self.waiting and self.waiting[0][0] <= now:
            with contextlib.suppress(OSError):  # lost, as in any full queue
                self.target.send(self.waiting.popleft()[1])


def forward(pairs: list[list[str]], delay: float, talk: socket.socket) -> None:
    """Pass frames between the devices of each pair, `delay` seconds late, until `talk` ends; it may change that."""
    ways: list[Way] = []
    for near, far in pairs:
        one, other = _device(near), _device(far)
        ways += [Way(one, other), Way(other, one)]
    inputs = [talk.fileno(), *(way.source.fileno() for way in ways)]
    while True:
        due = min((way.waiting[0][0] for way in ways if way.waiting), default=None)
        ready, _, _ = select.select(inputs, [], [], None if due is None else max(0.0, due - time.monotonic()))
        now = time.monotonic()
        for way in ways:
            way.give(now)
            if way.source.fileno() in ready:
                way.take(delay)
        if talk.fileno() in ready:
            message = talk.recv(4096)
            if not message:
                return
            delay = json.loads(message)["delay"]


def _device(name: str) -> socket.socket:
    device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # no frames before it is bound to the one device
    device.setblocking(False)
    device.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    device.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    for forced, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            device.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
        except PermissionError:
            device.setsockopt(socket.SOL_SOCKET, plain, BUFFER)
    device.bind((name, ETH_P_ALL))
    return device
