"""The few Linux calls about processes that the launcher and its minders share. For single-threaded processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

ALL_SIGNALS = signal.valid_signals()  # once: the call builds the set anew each time
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become_subreaper() -> None:
    """From now on orphaned descendants become children of the calling process. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int, signum: signal.Signals) -> None:
    """Have `signum` sent to the calling process when its parent ends; ends it here if that was before.

    To be called after a change of uid, which undoes it.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(1)


def fork(body: Callable[[], int]) -> int:
    """Run `body` in a forked child, which ends with the code it returns; the child's pid. Raises OSError."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = body()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def children() -> set[int]:
    """Pids of the calling process's children, zombies included. Needs the /proc of its own pid namespace."""
    pid = os.getpid()
    return {int(word) for word in Path(f"/proc/self/task/{pid}/children").read_text().split()}


def kill_child(pid: int) -> None:
    """SIGKILL to a child that has not been reaped."""
    # a setuid program may be out of reach for a launcher that is not root: it can only be waited for
    with contextlib.suppress(PermissionError):
        os.kill(pid, signal.SIGKILL)


def close_all_but(keep: Collection[int]) -> None:
    """Close every file descriptor of the process that is not in `keep`."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in keep:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed already
                os.close(fd)


def open_standard_streams() -> None:
    """Put /dev/null where descriptor 0, 1 or 2 is closed, so that nothing else can come to lie there."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)


def wake_on(*signals: signal.Signals) -> int:
    """A file descriptor to poll, into which each of `signals` that arrives puts its number as one byte."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    for signum in signals:
        signal.signal(signum, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def arrived(reader: int) -> bytes:
    """The numbers of the signals that `wake_on` noted since the last call."""
    try:
        return os.read(reader, 1 << 16)
    except BlockingIOError:
        return b""


def default_signals() -> None:
    """Undo `wake_on`, give every signal its default disposition, then let in those that were blocked."""
    signal.set_wakeup_fd(-1)
    for signum in ALL_SIGNALS - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
