"""What stands over one launched process: a small forked process that leaves nothing of it behind.

    launcher -- minder -- the process (a session of its own) -- its descendants, whatever sessions they make

The minder is a child subreaper: a descendant whose parent ends becomes the minder's own child. It kills only its
own children. Nobody else can reap those, so their pids cannot have passed to a stranger, and every death
hands the next generation up to it. When it has no child left, nothing of the tree is left.

The minder stays in the launcher's session and keeps the launcher's uid: the launched process, in another
session and often of another user, cannot reach it with a signal to its group or to all it may signal. It ends
the tree when the process ends, at SIGTERM, and when the launcher is gone.

Control socket, packets of text: to the minder, "SIGNAL GRACE", a signal for the process group and the seconds that
it leaves to what outlives the process, whose shell may be faster to end than what it had started; from the
minder, "started PID" and then "ended STATUS", the exit code or minus the signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Collection

from cluster.forking import (
    ALL_SIGNALS,
    arrived,
    become_subreaper,
    children,
    close_all_but,
    die_with,
    fork,
    kill_child,
    wake_on,
)
from staging.mover.title import name_process


def start(run: Callable[[int], int], stdio: Collection[int]) -> tuple[int, socket.socket]:
    """Fork a minder, and under it a process, leader of a new session, that calls `run` with the minder's pid.

    All signals are blocked in `run` until it lets them in. `stdio` are the descriptors that it needs; of the
    caller's others only 0 to 2 stay open. Returns the minder's pid and the caller's end of the control socket,
    which does not block. Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launcher = os.getpid()
    # no signal reaches the minder before it has handlers of its own: the launcher's would swallow it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
    try:
        pid = fork(lambda: _mind(run, stdio, theirs, launcher))
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    ours.setblocking(False)
    return pid, ours


def _mind(run: Callable[[int], int], stdio: Collection[int], control: socket.socket, launcher: int) -> int:
    close_all_but({0, 1, 2, control.fileno(), *stdio})
    die_with(launcher, signal.SIGTERM)
    name_process("stage-minder")
    become_subreaper()
    woken = wake_on(signal.SIGCHLD, signal.SIGTERM)
    minder = os.getpid()

    def begin() -> int:
        os.setsid()
        return run(minder)

    process = fork(begin)
    for fd in stdio:
        os.close(fd)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _report(control, f"started {process}")
    status = _kill_rest(process, _watch(process, control, woken))
    _report(control, f"ended {status}")
    return 0


def _report(control: socket.socket, text: str) -> None:
    with contextlib.suppress(ConnectionError):  # the launcher is gone: _watch will see that, or has seen it
        control.send(text.encode("ascii"))


def _watch(process: int, control: socket.socket, woken: int) -> int | None:
    """Pass signals on until the tree is to be killed: the status of the process, or None where it has not ended."""
    poller = select.poll()
    poller.register(woken, select.POLLIN)
    poller.register(control, select.POLLIN)
    status = None
    deadline = 0.0  # for what outlives the process
    while True:
        left = deadline - time.monotonic()
        if status is not None and (left <= 0 or not children()):
            return status
        ready = {fd for fd, _ in poller.poll(None if status is None else left * 1000)}
        if control.fileno() in ready:
            order = _receive(control)
            if not order:
                return status
            signum, grace = map(int, order.split())
            deadline = time.monotonic() + grace
            if status is None:  # its group's number may be a stranger's once it is reaped
                _signal_group(process, signum)
        if signal.SIGTERM in arrived(woken):
            return status
        status = _reap(process, status)


def _reap(process: int, status: int | None) -> int | None:
    """Reap what has ended; the status of the process once it has."""
    with contextlib.suppress(ChildProcessError):
        while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            if reaped[0] == process:
                status = os.waitstatus_to_exitcode(reaped[1])
    return status


def _receive(control: socket.socket) -> bytes:
    try:
        return control.recv(64)
    except ConnectionResetError:  # the launcher ended with a packet unread
        return b""


def _signal_group(process: int, signum: int) -> None:
    """Signal the group of the process, which is not reaped yet, so that its pid cannot be a stranger's."""
    with contextlib.suppress(PermissionError):  # as in kill_child
        try:
            os.killpg(process, signum)
        except ProcessLookupError:  # it has not made its session yet
            os.kill(process, signum)


def _kill_rest(process: int, status: int | None) -> int:
    """Kill and reap until no child is left; the status of the process.

    The wait cannot miss a child: whatever joins after the listing does so by the death of a listed one.
    """
    while True:
        for pid in children():
            kill_child(pid)
        try:
            pid, ended = os.waitpid(-1, 0)
        except ChildProcessError:
            assert status is not None
            return status
        if pid == process:
            status = os.waitstatus_to_exitcode(ended)
