"""Every error a user can meet, with its exit code and its remedy, and the one place that words them.

    StageError                 1  anything without a better class
    ├── UsageError             2  the command or the job script is wrong; nothing was done
    ├── PartialError           3  some nodes or files failed, the others are done
    ├── SourceError            4  a source is missing or unreadable
    │   └── SourceChanged      4  a source changed or vanished while it was read
    ├── TemporaryError         5  trying again may help
    │   ├── Unreachable        5  a peer, a node or the head does not answer
    │   └── Interrupted        5  the other side stopped midway
    ├── VerifyError            6  bytes arrived that are not the source's
    ├── RefusedError           7  authentication, permission, policy
    └── LimitError             8  no space, quota, or a deadline passed
        └── SpaceError         8  the destination's file system is full

This module is at the bottom of the import order so that the mover and everything above share it. An error
crosses a process boundary as `to_wire()` and comes back as the same class by `from_wire()`.
"""

from __future__ import annotations

import errno
from typing import Any

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class StageError(Exception):
    """Base of all our errors: one line for the user, a remedy where there is one, an exit code."""

    exit_code = 1
    default_remedy = ""
    multiline = False  # whether it is several problems, a line each
    partial = False  # whether a resumable partial replica was left behind

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy or self.default_remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message, self.remedy))

    def to_wire(self) -> dict[str, str]:
        """The JSON form: {"class", "message", "remedy"}."""
        return {"class": type(self).__name__, "message": self.message, "remedy": self.remedy}


class UsageError(StageError):
    """The command line or the job script is wrong; nothing was started."""

    exit_code = 2


class PartialError(StageError):
    """Some nodes or files failed while others were completed."""

    exit_code = 3


class SourceError(StageError):
    """A source is missing or unreadable."""

    exit_code = 4


class SourceChanged(SourceError):
    """A source changed while it was being read."""

    default_remedy = "stage it again once nothing writes to it"


class TemporaryError(StageError):
    """Something that may go away by itself."""

    exit_code = 5
    default_remedy = "try again"


class Unreachable(TemporaryError):
    """A peer, a node or the head does not answer."""


class Interrupted(TemporaryError):
    """The other side stopped before the end."""

    default_remedy = "run the same command again to resume"


class VerifyError(StageError):
    """Bytes arrived that are not the source's; they were not kept."""

    exit_code = 6


class RefusedError(StageError):
    """Authentication, permission or policy forbids it."""

    exit_code = 7


class LimitError(StageError):
    """A limit or a deadline was reached."""

    exit_code = 8


class SpaceError(LimitError):
    """The destination's file system (or quota) is full."""

    default_remedy = "free space there, or choose another destination"


def _tree(root: type[StageError]) -> dict[str, type[StageError]]:
    found = {root.__name__: root}
    for sub in root.__subclasses__():
        found.update(_tree(sub))
    return found


CLASSES = _tree(StageError)


def from_wire(wire: dict[str, Any]) -> StageError:
    """The error that `to_wire` described; an unknown class becomes a plain StageError."""
    cls = CLASSES.get(str(wire.get("class")), StageError)
    return cls(str(wire.get("message", "unknown error")), str(wire.get("remedy", "")))


def from_os_error(error: OSError, doing: str, *, source: bool = False) -> StageError:
    """Word an OSError met while `doing` ("write /scratch/x"); `source` says which side it was on."""
    text = f"cannot {doing}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpaceError(text)
    if source:
        return SourceError(text)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RefusedError(text, "choose a destination you may write to")
    # most of them are these classes by their errno; those that we raise have no errno
    if isinstance(error, (ConnectionError, TimeoutError)) or error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Unreachable(text)
    return StageError(text)


def describe(error: BaseException) -> tuple[str, int]:
    """The line to print for any exception, without a trailing newline, and the exit code that goes with it."""
    if isinstance(error, StageError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, OSError):
        wrapped = from_os_error(error, f"use {error.filename!r}" if error.filename else "continue")
        return str(wrapped), wrapped.exit_code
    return f"internal error: {type(error).__name__}: {error}", StageError.exit_code
