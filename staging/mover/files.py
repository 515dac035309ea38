"""Open files of a replica, at most so many at once, addressed by manifest entry."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

MAX_OPEN = 64
DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenFiles:
    """A small LRU of descriptors; one that is in use is never closed under its user."""

    def __init__(self, opener: Callable[[int], int], limit: int = MAX_OPEN) -> None:
        self._opener = opener
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[int, int] = OrderedDict()
        self._users: dict[int, int] = {}

    @contextmanager
    def use(self, entry: int) -> Iterator[int]:
        with self._lock:
            fd = self._open.get(entry)
            if fd is None:
                fd = self._open[entry] = self._opener(entry)
            self._open.move_to_end(entry)
            self._users[entry] = self._users.get(entry, 0) + 1
        try:
            yield fd
        finally:
            with self._lock:
                self._users[entry] -= 1
                if not self._users[entry]:
                    del self._users[entry]
                self._trim()

    def _trim(self) -> None:
        if len(self._open) <= self._limit:
            return
        for entry in list(self._open):
            if entry not in self._users:
                os.close(self._open.pop(entry))
            if len(self._open) <= self._limit:
                return

    def close(self) -> None:
        """Close what nobody uses; the caller has ended its threads."""
        with self._lock:
            for fd in self._open.values():
                os.close(fd)
            self._open.clear()
