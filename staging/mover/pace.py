"""A limit on what a host sends: a token bucket, and the lock and sleep by which all threads of a mover share it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

SECONDS_AT_ONCE = 0.05  # of the rate: what may be sent in one go, so that every peer hears something often
MAX_AT_ONCE = 64 << 10
SO_MAX_PACING_RATE = 47  # Linux; the socket module does not name it
MAX_KERNEL_RATE = (1 << 32) - 2


class Bucket:
    """Bytes may leave at `rate` per second; of what was not used, `burst` seconds' worth is kept. Pure.

    `take` says how long to wait before bytes are sent, so in any time t at most rate * (t + burst) bytes leave, and
    what was taken last. Times in seconds, of any clock that does not go back.
    """

    def __init__(self, rate: int, now: float, burst: float = SECONDS_AT_ONCE) -> None:
        self.rate = rate
        self._burst = burst
        self._due = now  # when the next byte may leave

    def take(self, size: int, now: float) -> float:
        """Seconds until these bytes may leave; they count as sent."""
        start = max(self._due, now - self._burst)
        self._due = start + size / self.rate
        return max(0.0, start - now)


class Pacer:
    """A bucket that all connections of a mover share."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._bucket = Bucket(rate, time.monotonic())
        self._lock = threading.Lock()
        self.at_once = max(1, min(MAX_AT_ONCE, int(rate * SECONDS_AT_ONCE)))

    def wait(self, size: int) -> None:
        """Sleep until `size` bytes may leave."""
        with self._lock:
            seconds = self._bucket.take(size, time.monotonic())
        if seconds > 0:
            time.sleep(seconds)

    def smooth(self, sock: socket.socket) -> None:
        """Have the kernel space the packets out too, where it can."""
        if self._rate <= MAX_KERNEL_RATE:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("I", self._rate))
