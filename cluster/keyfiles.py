"""Files that hold keys: private from the moment they exist, whole or absent, refused where others can reach them."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from staging.mover.errors import RefusedError, from_os_error

_REMEDY = "delete it if others may have read or changed it, otherwise run chmod {mode:o} {path}"


def own_directory(path: Path, *, private: bool = True) -> None:
    """Make the directory with mode 0700, or check the one that is there.

    Raises RefusedError for a symlink, another owner, and a directory that others may write to or, where it is
    to be `private`, enter.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise from_os_error(error, f"make {path}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise RefusedError(f"{path} is not a directory itself", "move it away")
    if found.st_uid != os.geteuid():
        raise RefusedError(f"{path} belongs to uid {found.st_uid}", "choose a directory of your own")
    if found.st_mode & (0o077 if private else 0o022):
        raise RefusedError(f"others have access to {path}", f"run chmod 700 {path}")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: who looks for keys there and makes them is the only one to do so."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(directory / ".lock", flags, 0o600)
    except OSError as error:
        raise from_os_error(error, f"lock {directory}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` there in one step: no reader sees a part of it, and no mode but `mode`, whatever the umask."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(fd, mode)
                os.fsync(fd)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise from_os_error(error, f"write {path}") from error


def read(path: Path, *, private: bool = True) -> bytes:
    """The content. Raises SourceError where it is missing or a symlink.

    Raises RefusedError for an owner who is neither the caller nor root, and for a file that others may write or,
    where it is `private`, read.
    """
    try:
        # without NONBLOCK the open of a fifo would wait for a writer
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise RefusedError(f"{path} is not a regular file", "move it away")
            if found.st_uid not in (os.geteuid(), 0):
                raise RefusedError(f"{path} belongs to uid {found.st_uid}", "use keys of your own or of root")
            if found.st_mode & (0o077 if private else 0o022):
                remedy = _REMEDY.format(mode=0o600 if private else 0o644, path=path)
                raise RefusedError(f"others can {'use' if private else 'change'} {path}", remedy)
            return file.read()
    except OSError as error:
        raise from_os_error(error, f"read {path}", source=True) from error
