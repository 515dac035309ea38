"""The error tree: exit codes, wording, and the way across a process boundary."""

from __future__ import annotations

import errno
import pickle
import re

import pytest

from staging.mover import errors
from staging.mover.errors import (
    CLASSES,
    LimitError,
    RefusedError,
    SourceChanged,
    SourceError,
    SpaceError,
    StageError,
    Unreachable,
    UsageError,
    describe,
    from_os_error,
    from_wire,
)

every_class = pytest.mark.parametrize("cls", CLASSES.values(), ids=list(CLASSES))


def test_the_tree_is_the_one_in_the_module_docstring() -> None:
    drawn = {name: int(code) for name, code in re.findall(r"([A-Z]\w+) +(\d)(?:  |\n)", errors.__doc__ or "")}

    assert drawn == {name: cls.exit_code for name, cls in CLASSES.items()}


@every_class
def test_wire_round_trip(cls: type[StageError]) -> None:
    error = cls("it broke", "mend it")
    again = from_wire(error.to_wire())
    assert type(again) is cls
    assert (again.message, again.remedy) == ("it broke", "mend it")


@every_class
def test_pickle_round_trip(cls: type[StageError]) -> None:
    again = pickle.loads(pickle.dumps(cls("it broke")))
    assert type(again) is cls
    assert str(again) == str(cls("it broke"))


def test_an_unknown_class_is_a_plain_error() -> None:
    assert type(from_wire({"class": "FutureError", "message": "m"})) is StageError
    assert type(from_wire({"class": "object"})) is StageError
    assert from_wire({}).message == "unknown error"


def test_remedy_is_part_of_the_line() -> None:
    assert str(StageError("no")) == "no"
    assert str(SpaceError("full")) == "full; free space there, or choose another destination"
    assert str(SpaceError("full", "delete it")) == "full; delete it"
    assert SourceChanged("x").remedy


@pytest.mark.parametrize(
    ("number", "source", "cls"),
    [
        (errno.ENOSPC, False, SpaceError),
        (errno.EDQUOT, False, SpaceError),
        (errno.EACCES, False, RefusedError),
        (errno.EPERM, False, RefusedError),
        (errno.EROFS, False, RefusedError),
        (errno.EACCES, True, SourceError),
        (errno.EIO, True, SourceError),
        (errno.ECONNREFUSED, False, Unreachable),
        (errno.ECONNRESET, False, Unreachable),
        (errno.EHOSTUNREACH, False, Unreachable),
        (errno.ENETUNREACH, False, Unreachable),
        (errno.ETIMEDOUT, False, Unreachable),
        (errno.EPIPE, False, Unreachable),
        (errno.EIO, False, StageError),
    ],
)
def test_class_of_an_os_error(number: int, source: bool, cls: type[StageError]) -> None:
    error = from_os_error(OSError(number, "because"), "write /x", source=source)
    assert type(error) is cls
    assert error.message == "cannot write /x: because"


@pytest.mark.parametrize("error", [ConnectionError("gone"), TimeoutError("late")])
def test_os_errors_without_a_number(error: OSError) -> None:
    made = from_os_error(error, "ask n1")
    assert type(made) is Unreachable
    assert made.message == f"cannot ask n1: {error}"


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (UsageError("no such flag", "see --help"), "no such flag; see --help", 2),
        (LimitError("too late"), "too late", 8),
        (KeyboardInterrupt(), "interrupted", 130),
        (OSError(errno.EIO, "I/O error", "/x"), "cannot use '/x': I/O error", 1),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "cannot continue: Broken pipe; try again", 5),
        (ZeroDivisionError("by zero"), "internal error: ZeroDivisionError: by zero", 1),
    ],
)
def test_describe(error: BaseException, line: str, code: int) -> None:
    assert describe(error) == (line, code)
