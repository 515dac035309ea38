"""What a command prints may have no place to go: a full disk, a reader that is gone. That is said, and no more."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from staging.mover.errors import StageError, from_os_error


def unwritable(error: OSError, what: str) -> StageError:
    """The error for output that could not be printed; SpaceError where the disk is full."""
    if error.errno == errno.EPIPE:
        return StageError(f"cannot write {what}: its reader is gone")
    return from_os_error(error, f"write {what}")


class Guard:
    """Calls what prints. The first failure is kept in `error`, and from then on nothing is printed."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.error: StageError | None = None

    def __call__(self, printing: Callable[..., None], *arguments: Any) -> bool:
        """Whether it is printed."""
        if self.error is None:
            try:
                printing(*arguments)
            except OSError as error:
                self.error = unwritable(error, self._what)
        return self.error is None


def write_through(stream: str, data: bytes) -> None:
    """Write to this process's "stdout" or "stderr" at once."""
    target = sys.stdout if stream == "stdout" else sys.stderr
    target.buffer.write(data)
    target.buffer.flush()


def flush() -> StageError | None:
    """Flush both standard streams; what cannot be written is dropped, so that the interpreter's end does not fail."""
    found = None
    for name, fd, stream in (("standard error", 2, sys.stderr), ("standard output", 1, sys.stdout)):
        try:
            stream.flush()
        except OSError as error:
            found = unwritable(error, name)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, fd)
            os.close(null)
    return found


def printable(text: str) -> str:
    r"""`text` on one line and harmless to a terminal: control characters and undecodable bytes are escaped.

    >>> printable("a b\n\x1b[2J\udcff")
    'a b\\n\\x1b[2J\\xff'
    """
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # a byte of a name that is not UTF-8, as os.fsdecode gives it
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode("ascii")
