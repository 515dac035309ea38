"""The signals that ask a command to end, and how they are held back while something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP came."""


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


@contextmanager
def terminating() -> Iterator[None]:
    """While the block runs SIGTERM and SIGHUP raise Terminated in it, as ^C raises KeyboardInterrupt."""
    chosen = [n for n in ENDING if signal.getsignal(n) is signal.SIG_DFL]
    for number in chosen:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in chosen:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[None]:
    """Hold the ending signals back while the block runs; processes that it starts do not inherit that."""
    if threading.current_thread() is not threading.main_thread():  # no handler runs in this one
        yield
        return
    came: list[int] = []
    saved = {n: signal.getsignal(n) for n in ENDING}
    held = {n: handler for n, handler in saved.items() if handler is not signal.SIG_IGN}
    for number in held:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for late in dict.fromkeys(came):
            signal.raise_signal(late)
