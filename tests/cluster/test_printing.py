"""cluster.printing: what cannot be printed is kept as an error, and what is printed is harmless."""

from __future__ import annotations

import doctest
import errno

import pytest

from cluster import printing
from cluster.printing import Guard, unwritable
from staging.mover.errors import SpaceError, StageError


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, SpaceError, "cannot write the log: No space left on device; free space there, or"),
        (errno.EPIPE, StageError, "cannot write the log: its reader is gone"),
        (errno.EIO, StageError, "cannot write the log: Input/output error"),
    ],
)
def test_the_error_says_what_could_not_be_written(number: int, kind: type[StageError], text: str) -> None:
    error = unwritable(
        OSError(number, "No space left on device" if number == errno.ENOSPC else "Input/output error"), "the log"
    )
    assert type(error) is kind
    assert str(error).startswith(text)


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(printing)
    assert (result.failed, result.attempted) == (0, 1)


def test_after_a_failure_nothing_is_printed() -> None:
    printed: list[str] = []

    def fail() -> None:
        raise OSError(errno.ENOSPC, "full")

    guard = Guard("it")
    guard(printed.append, "first")
    guard(fail)
    guard(printed.append, "second")
    assert printed == ["first"]
    assert isinstance(guard.error, SpaceError)
