"""The cluster's keeper: a process that holds the switch's namespaces and is the parent of every host's init.

It ends when its owner ends or closes the control socket, and nothing of the cluster outlives it: the kernel kills
every init when the keeper goes, and with an init all processes of its host.

`python -m tests.hosts.keeper SOCKET OWNER USERNS`: the fd of the control socket, the pid of the owner, 1 to make a
user namespace. Each message is a host to boot or a forwarder to start (JSON), with a socket on which that talks.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from tests.hosts import delay, init, kernel

LARGEST = 1 << 20
FAREWELL_SECONDS = 5.0


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    owner = os.pidfd_open(int(sys.argv[2]))
    if os.getppid() != int(sys.argv[2]):
        return
    if sys.argv[3] == "1":
        become_root_of_user_namespace()
    kernel.adopt_orphans()
    kernel.unshare(kernel.CLONE_NEWNET)
    for scope in ("all", "default"):  # a switch has no addresses and says nothing of its own
        with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", "w") as file:
            file.write("1")
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
                wait_for_children()
                return
            spec, talk = json.loads(message), socket.socket(fileno=fds[0])
            with talk:
                if "forward" in spec:
                    fork_forwarder(spec, talk)
                else:
                    fork_host(spec, talk)


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


def wait_for_children() -> None:
    """The owner has told them all to end: leave none of them to the machine's init."""
    deadline = time.monotonic() + FAREWELL_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.001)


def fork_forwarder(spec: dict[str, Any], talk: socket.socket) -> None:
    me = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        _guarded(talk, lambda: _forward(spec, talk, me))
    os.close(me)


def _forward(spec: dict[str, Any], talk: socket.socket, keeper: int) -> None:
    signal.set_wakeup_fd(-1)
    if _dies_with(keeper):
        talk.send(json.dumps({"pid": os.getpid()}).encode())
        delay.forward(spec["forward"], spec["delay"], talk)


def _dies_with(keeper: int) -> bool:
    """Tie this process's life to its parent's; false if that is over already."""
    kernel.die_with_parent(signal.SIGKILL)
    return not select.select([keeper], [], [], 0)[0]


def fork_host(spec: dict[str, Any], talk: socket.socket) -> None:
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
    if _dies_with(keeper):
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
