"""Putting a finished tree under its final names: whole directories by one rename, file by file where one exists.

No component below the destination is followed if it is a symbolic link. Trees may be deeper than the interpreter's
stack, so nothing here calls itself.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import NamedTuple, Optional

from .errors import RefusedError, StageError
from .files import DIR_FLAGS

_Waiting = tuple[str, str, Optional[Mapping[str, str]]]  # two directories as below, names; None: all that is there


class _Moves(NamedTuple):
    """Names that go from one directory into another; both are paths relative to the two tops."""

    inner: str
    outer: str
    names: list[tuple[str, str]]


def place(staged: int, parent: int, names: Mapping[str, str], shown: str) -> set[str]:
    """Rename `names` (new name by old one) from directory fd `staged` into directory fd `parent`, merging directories.

    All is checked before anything moves. `shown` is the path of `parent`; returns the paths of the directories that
    were there before. Raises StageError where a directory is in the way of a file or the other way round.
    """
    merged: set[str] = set()
    waiting: list[_Waiting] = [("", "", names)]
    while waiting:
        plan = _plan(staged, parent, waiting, shown, merged)
        waiting = []
        for moves in plan:
            inner, outer = _open(staged, moves.inner), -1
            try:
                outer = _open(parent, moves.outer)
                for name, final in moves.names:
                    try:
                        os.rename(name, final, src_dir_fd=inner, dst_dir_fd=outer)
                    except OSError as error:
                        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                            raise
                        waiting.append((moves.inner, moves.outer, {name: final}))  # another transfer has just made it
            finally:
                _close(inner, outer)
    return merged


def _plan(staged: int, parent: int, waiting: list[_Waiting], shown: str, merged: set[str]) -> list[_Moves]:
    """Check all that is waiting and what is below it; what is to be renamed. Adds to `merged`."""
    plan = []
    while waiting:
        inner_path, outer_path, children = waiting.pop()
        inner, outer = _open(staged, inner_path), -1
        try:
            outer = _open(parent, outer_path)
            moves = _Moves(inner_path, outer_path, [])
            if children is None:
                children = {name: name for name in os.listdir(inner)}
            for name, final in children.items():
                below = os.path.join(outer_path, final)
                if _is_merged(inner, name, outer, final, os.path.join(shown, below)):
                    merged.add(os.path.join(shown, below))
                    waiting.append((os.path.join(inner_path, name), below, None))
                else:
                    moves.names.append((name, final))
            if moves.names:
                if not os.access(".", os.W_OK | os.X_OK, dir_fd=outer, effective_ids=True):
                    path = os.path.join(shown, outer_path, moves.names[0][1])
                    raise RefusedError(f"cannot put {path} there: its directory may not be written to")
                plan.append(moves)
        finally:
            _close(inner, outer)
    return plan


def _is_merged(inner: int, name: str, outer: int, final: str, shown: str) -> bool:
    """Whether both are directories; False where `name` is simply to be renamed."""
    try:
        there = os.stat(final, dir_fd=outer, follow_symlinks=False)
    except FileNotFoundError:
        return False
    is_dir = stat.S_ISDIR(os.stat(name, dir_fd=inner, follow_symlinks=False).st_mode)
    if is_dir != stat.S_ISDIR(there.st_mode):
        kinds = ("a directory", "no directory") if is_dir else ("no directory", "a directory")
        raise StageError(f"{shown} is {kinds[1]} here but {kinds[0]} at the source", "remove it first")
    return is_dir


def _open(top: int, path: str) -> int:
    """A descriptor of the directory `path` below `top`, component by component."""
    at = os.dup(top)
    for part in path.split("/") if path else ():
        try:
            below = os.open(part, DIR_FLAGS, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def _close(*descriptors: int) -> None:
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)
