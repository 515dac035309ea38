"""Waiting for what must come, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


def until(what: str, probe: Callable[[], T], seconds: float = 10.0, every: float = POLL_SECONDS) -> T:
    """The first true value of `probe()`; AssertionError when there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(every)
    return found
