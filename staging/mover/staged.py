"""Making whole small files in the hidden area: open, write, mode, time and close in one go."""

from __future__ import annotations

import os
import stat
from types import TracebackType

from .digests import Bytes
from .files import DIR_FLAGS

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Maker:
    """Makes files beneath `top`, for one thread. The directory of the last one stays open, since the next is its
    neighbour nearly always: so no path is walked from the root for each file."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._parent: str | None = None
        self._fd = -1
        self._exact: dict[int, bool] = {}  # whether a file made with this mode has it, whatever umask and ACLs say

    def __enter__(self) -> Maker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def make(self, path: str, data: Bytes, mode: int, mtime_ns: int | None) -> None:
        """Make the file `path` (relative to `top`) with all of its bytes; one that is there is replaced.

        `mtime_ns` None: now. Raises OSError; what was made by then is left.
        """
        parent, _, name = path.rpartition("/")
        if parent != self._parent:
            self._turn_to(parent)
        try:
            fd = os.open(name, CREATE, mode, dir_fd=self._fd)
        except FileExistsError:  # of an earlier try
            os.unlink(name, dir_fd=self._fd)
            fd = os.open(name, CREATE, mode, dir_fd=self._fd)
        try:
            done = os.pwrite(fd, data, 0) if data else 0
            while done < len(data):
                done += os.pwrite(fd, memoryview(data)[done:], done)
            exact = self._exact.get(mode)
            if exact is None:
                exact = self._exact[mode] = stat.S_IMODE(os.fstat(fd).st_mode) == mode
            if not exact or mode & (stat.S_ISUID | stat.S_ISGID):  # those two do not outlive the writing
                os.fchmod(fd, mode)
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)

    def _turn_to(self, parent: str) -> None:
        fd = os.open(os.path.join(self._top, parent), DIR_FLAGS)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._parent, self._exact = fd, parent, {}
