"""The cluster's keeper: a process that holds the switch's namespaces and is the parent of every host's init.

It ends when its owner ends or closes the control socket, and nothing of the cluster outlives it: the kernel kills
every init when the keeper goes, and with an init all processes of its host.

`python -m tests.hosts.keeper SOCKET OWNER USERNS`: the fd of the control socket, the pid of the owner, 1 to make a
user namespace. Each message is a host to boot (JSON) with a socket on which the host's init talks.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from tests.hosts import init, kernel

LARGEST = 1 << 20


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    owner = os.pidfd_open(int(sys.argv[2]))
    if os.getppid() != int(sys.argv[2]):
        return
    if sys.argv[3] == "1":
        become_root_of_user_namespace()
    kernel.adopt_orphans()
    kernel.unshare(kernel.CLONE_NEWNET)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    control.send(b"{}")
    while True:
        ready, _, _ = select.select([control.fileno(), owner, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            reap()
        if owner in ready:
            return
        if control.fileno() in ready:
            message, fds, _, _ = socket.recv_fds(control, LARGEST, 1)
            if not message:
                return
            fork(json.loads(message), socket.socket(fileno=fds[0]))


def become_root_of_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def fork(spec: dict[str, Any], talk: socket.socket) -> None:
    """Start a host's init. A PID namespace begins with the next child, so a process in between makes it and ends."""
    me = os.pidfd_open(os.getpid())
    adopted, adopt = os.pipe()
    between = os.fork()
    if between == 0:
        _guarded(talk, lambda: _between(spec, talk, me, adopted, adopt))
    os.waitpid(between, 0)
    os.write(adopt, b"\0")
    for fd in (me, adopted, adopt):
        os.close(fd)
    talk.close()


def _between(spec: dict[str, Any], talk: socket.socket, keeper: int, adopted: int, adopt: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.unshare(kernel.CLONE_NEWPID)
    pid = os.fork()
    if pid != 0:
        talk.send(json.dumps({"pid": pid}).encode())
        return
    os.close(adopt)
    if os.read(adopted, 1) != b"\0":
        return
    kernel.die_with_parent(signal.SIGKILL)
    if select.select([keeper], [], [], 0)[0]:
        return
    init.run(spec, talk)


def _guarded(talk: socket.socket, work: Callable[[], None]) -> None:
    """In a forked child: never return to the caller's stack, tell the owner what went wrong."""
    try:
        work()
    except BaseException as error:
        with contextlib.suppress(OSError):
            talk.send(json.dumps({"error": str(error), "trace": traceback.format_exc()}).encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
