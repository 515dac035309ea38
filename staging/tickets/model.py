"""What the ticket queue takes and gives: requests, limits, answers, rows for display."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Literal

from staging.mover.errors import UsageError

Direction = Literal["put", "get"]
SizeClass = Literal["small", "large"]
Outcome = Literal["ok", "failed"]
End = Literal["ok", "failed", "cancelled", "purged"]

SIZE_CLASSES: tuple[SizeClass, ...] = ("small", "large")
DEFAULT_THRESHOLD = 256 * 1024 * 1024
DEFAULT_IDLE = 120.0


@dataclass(frozen=True)
class Request:
    """One copy a client wants to make to ("put") or from ("get") the data server.

    `bytes` is the sum over everything that is to be copied, None where nobody knows it. `user` and `job`
    are the owner; `job` is empty outside a job. Raises UsageError.
    """

    direction: Direction
    paths: tuple[str, ...]
    bytes: int | None
    recursive: bool
    user: str
    job: str

    def __post_init__(self) -> None:
        if self.direction not in ("put", "get"):
            raise UsageError(f"unknown direction {self.direction!r}", "ask for put or get")
        if not self.paths or not all(self.paths):
            raise UsageError("a request without a path", "name at least one file to copy")
        if not self.user:
            raise UsageError("a request without a user", "say whose copy it is")
        if self.bytes is not None:
            check_bytes(self.bytes)


def check_bytes(count: int) -> None:
    """Raise UsageError for a number of bytes below 0."""
    if count < 0:
        raise UsageError(f"{count} is not a number of bytes", "give 0 or more")


def ticket_id(request: Request) -> str:
    """The ticket of a request: 32 hex digits, equal for equal requests of the same owner.

    BLAKE2b-128 over the request as JSON in UTF-8, keys sorted, without spaces. Names that are not UTF-8
    arrive with surrogates (PEP 383); they are encoded as they are, so different names never look alike.
    """
    text = json.dumps(vars(request), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16, person=b"longshore-ticket").hexdigest()


@dataclass(frozen=True)
class Limits:
    """What the data server can bear.

    small, large: copies at once in each class, 1 or more.
    threshold: bytes; a request is small if its size is known and below this (default 256 MiB).
    idle: seconds without a word from the client after which its ticket is purged.
    per_user: copies at once of one user in each class, None for no such limit. It counts in each class by
        itself, so that a user's large copies never hold up the small ones.
    Raises UsageError.
    """

    small: int
    large: int
    threshold: int = DEFAULT_THRESHOLD
    idle: float = DEFAULT_IDLE
    per_user: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("small", self.small), ("large", self.large), ("per_user", self.per_user)):
            if value is not None and value < 1:
                raise UsageError(f"limit {name} is {value}", "allow at least 1 copy at once")
        if self.threshold < 1:
            raise UsageError(f"threshold is {self.threshold} bytes", "give at least 1 byte")
        if not 0 < self.idle < math.inf:
            raise UsageError(f"idle time is {self.idle} s", "give a finite number of seconds above 0")

    def size_class(self, request: Request) -> SizeClass:
        """The class of a request. Recursive or not, a size that is not known counts as large."""
        return "small" if request.bytes is not None and request.bytes < self.threshold else "large"

    def places(self, size_class: SizeClass) -> int:
        """Copies at once in a class."""
        return self.small if size_class == "small" else self.large


@dataclass(frozen=True)
class Answer:
    """What a client hears.

    "ok": the ticket has a place, copy now; as the answer to `done` or `cancel`: the ticket has ended.
    "wait": `position` (1 = next) among those waiting in its class; ask again after `sleep` seconds.
    "gone": no such ticket, perhaps purged; stop copying and ask anew.
    """

    state: Literal["ok", "wait", "gone"]
    position: int = 0
    sleep: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How many tickets of a class ended in one way, and the bytes they had copied by then."""

    size_class: SizeClass
    end: End
    tickets: int
    bytes_done: int


@dataclass(frozen=True)
class Row:
    """One ticket for display; position is 0 for a running one.

    `since` is when it began to wait or to run, on the clock of the caller's `now`.
    """

    ticket: str
    size_class: SizeClass
    user: str
    job: str
    bytes: int | None
    done: int
    state: Literal["waiting", "running"]
    position: int
    since: float
