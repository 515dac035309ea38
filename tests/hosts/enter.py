"""Start a process inside a host, as a child of the caller: its pid, signals and exit status are those of any child."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.hosts import kernel

ALL = kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
NETWORK = kernel.CLONE_NEWNET

Made = TypeVar("Made")


def inside(pidfd: int, namespaces: int, make: Callable[[], Made]) -> Made:
    """Call `make` in a thread that is in these namespaces of the process `pidfd`. What it starts is there too."""
    made: list[Made] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            if namespaces & kernel.CLONE_NEWNS:
                kernel.unshare(kernel.CLONE_FS)  # the root and working directory of this thread only
            kernel.setns(pidfd, namespaces)
            made.append(make())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="enter")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def popen(pid: int, pidfd: int, namespaces: int, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen` in namespaces of a process; programs and `cwd` are found there."""
    if os.geteuid() == 0:
        return inside(pidfd, namespaces, lambda: subprocess.Popen(argv, **options))
    # Only a process with a single thread may enter a user namespace: one that is in between, and takes the other along.
    enter = ["nsenter", "--target", str(pid), "--user", "--preserve-credentials", "--net"]
    if namespaces == ALL:
        enter += ["--mount", "--uts", "--ipc", "--pid"]
    cwd = options.pop("cwd", None)
    within = [] if cwd is None else ["env", "-C", str(cwd), "--"]
    return subprocess.Popen([*enter, "--", "setpriv", "--pdeathsig", "KILL", "--", *within, *argv], **options)
