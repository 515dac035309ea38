"""Where a replica goes: the destination's meaning, the hidden area beside it, and putting files under their names.

Everything is written inside `PARENT/.lsh-ID/tree` first, a private directory in the file system of the final
names. An area is kept when a transfer ends early, for the same one to resume; one that nobody has come back to for a
week is removed by the next transfer to the same place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import RefusedError, SpaceError, TemporaryError, UsageError, from_os_error
from .files import DIR_FLAGS
from .placing import place
from .trees import bytes_held, remove_tree

AREA_PREFIX = ".lsh-"
AREA_NAME = re.compile(re.escape(AREA_PREFIX) + "[0-9a-f]{16}")
ABANDONED_SECONDS = 7 * 86400  # since a transfer last used the area


class Target(NamedTuple):
    """`parent` holds the final names. `whole`: the tree itself becomes this name. `rename`: the one top's new name."""

    parent: str
    whole: str = ""
    rename: str = ""

    def final(self, path: str) -> str:
        """The final path of a manifest path."""
        if self.whole:
            return os.path.join(self.parent, self.whole, path)
        if self.rename:
            _, slash, rest = path.partition("/")
            return os.path.join(self.parent, self.rename + slash + rest)
        return os.path.join(self.parent, path)


def locate(root: str, dest: str) -> str:
    """The real path of `dest` as named on a node whose own file tree starts at `root` ("" for the machine's)."""
    if not root:
        return os.path.abspath(dest)
    inside = os.path.normpath("/" + dest).lstrip("/")
    return os.path.join(root, inside)


def resolve(root: str, dest: str, into: str, summary: dict[str, Any]) -> Target:
    """rsync's rules, under which a copy that is made twice gives the same names twice.

    The contents of a directory become those of `dest`. A directory, or one of several sources, goes into `dest`. So
    does a file where `dest` has a directory's form ("d/", "d/.") or is a directory; else it gets the name `dest`.
    """
    path = locate(root, dest)
    exists = os.path.isdir(path)
    inside = into == "always" or summary["directory"] or len(summary["tops"]) > 1
    inside = inside or os.path.basename(dest) in ("", ".", "..")
    if os.path.lexists(path) and not exists and inside:
        raise UsageError(f"{path} is a file, a directory is needed", "remove it or name another destination")
    if summary["contents"] and not exists:
        return Target(os.path.dirname(path), whole=os.path.basename(path))
    return Target(path) if inside or exists else Target(os.path.dirname(path), rename=os.path.basename(path))


def _area_id(target: Target, identity: str) -> str:
    """The same files under the same final names: what a partial replica must share to be resumed."""
    names = json.dumps([identity, target.whole, target.rename]).encode("ascii")
    return hashlib.blake2b(names, digest_size=8).hexdigest()


class Area:
    """The hidden directory of one transfer; the same transfer finds it again and resumes."""

    def __init__(self, target: Target, identity: str, parents: bool) -> None:
        self.target = target
        self.made: list[str] = []
        self.path = os.path.join(target.parent, AREA_PREFIX + _area_id(target, identity))
        self.tree = os.path.join(self.path, "tree")
        self.found = False  # whether an earlier transfer left a tree here
        self._fd = -1
        try:
            self._make_parents(parents)
            self._claim()
        except OSError as error:
            self._unmake_parents()
            raise from_os_error(error, f"write to {target.parent}") from None

    def _make_parents(self, parents: bool) -> None:
        missing = []
        at = self.target.parent
        while not os.path.isdir(at):
            missing.append(at)
            at = os.path.dirname(at)
        if missing and os.path.lexists(missing[-1]):
            raise UsageError(f"{missing[-1]} is no directory", "remove it or name another destination")
        # rsync makes the last directory of a destination; more than that only where the caller wants it
        if len(missing) > (0 if self.target.rename or self.target.whole else 1) and not parents:
            slash = "" if self.target.rename else ", or end the destination with a slash to have it made"
            raise UsageError(f"{missing[0]} does not exist", f"make it first{slash}")
        for path in reversed(missing):
            os.mkdir(path)
            self.made.append(path)

    def _claim(self) -> None:
        """Make or find the area and lock it. One that another transfer just removed is made again."""
        while True:
            with contextlib.suppress(FileExistsError):  # of an earlier transfer, or planted by somebody else
                os.mkdir(self.path, 0o700)
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(self.path)
                if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
                    raise RefusedError(f"{self.path} belongs to somebody else", "remove it")
                self._fd = os.open(self.path, DIR_FLAGS)
                self._lock()
                if os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                    os.utime(self._fd)
                    break
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        try:
            os.mkdir(self.tree, 0o700)
        except FileExistsError:
            self.found = True

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            self._fd = -1
            raise TemporaryError(
                f"another transfer of the same files to {self.target.parent} is under way", "wait for it"
            ) from None

    def vacant(self, tops: Sequence[str]) -> bool:
        """Whether nothing can be under the final names yet, so that all bytes will be written."""
        name = self.target.whole or self.target.rename or (tops[0] if len(tops) == 1 else "")
        if name:
            return not os.path.lexists(os.path.join(self.target.parent, name))
        return os.listdir(self.target.parent) == [os.path.basename(self.path)]

    def need(self, size: int) -> None:
        """Raise SpaceError when `size` more bytes cannot fit."""
        room = os.statvfs(self.path)
        free = room.f_bavail * room.f_frsize + bytes_held(self.tree)
        if size > free:
            raise SpaceError(f"{self.target.parent} needs {size:,} bytes, its file system has {free:,} free")

    def release(self, keep: bool) -> bool:
        """Give the area up; with `keep` a partial replica stays. True when something stayed."""
        if self._fd < 0:
            return False  # given up before; what is there now is another transfer's
        kept = keep and os.path.isdir(self.tree) and bool(os.listdir(self.tree))
        if not kept:
            remove_tree(self.path)
            self._unmake_parents()
        os.close(self._fd)
        self._fd = -1
        return kept

    def _unmake_parents(self) -> None:
        for path in reversed(self.made):
            try:
                os.rmdir(path)
            except OSError:
                return  # something is in it by now
        self.made = []

    def place(self) -> set[str]:
        """Put the finished tree under its final names; what is in the way is checked before anything moves.

        Returns the directories that were there before and were merged into.
        """
        target = self.target
        parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held = os.open(self.path, DIR_FLAGS)
        try:
            names = {"tree": target.whole} if target.whole else {}
            if not names:
                os.close(held)
                held = os.open(self.tree, DIR_FLAGS)
                names = {name: target.rename or name for name in os.listdir(held)}
            return place(held, parent, names, target.parent)
        except OSError as error:
            raise from_os_error(error, f"put files into {target.parent}") from None
        finally:
            os.close(held)
            os.close(parent)


def sweep(parent: str, now: float) -> None:
    """Remove the areas in `parent` that are this user's, in no transfer's hands, and abandoned by the time `now`."""
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            if AREA_NAME.fullmatch(name):
                _sweep(os.path.join(parent, name), now)


def _sweep(path: str, now: float) -> None:
    with contextlib.suppress(OSError):  # it is somebody's, or went by itself
        fd = os.open(path, DIR_FLAGS)
        try:
            info = os.fstat(fd)
            if info.st_uid == os.geteuid() and now - info.st_mtime > ABANDONED_SECONDS:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path)
        finally:
            os.close(fd)
