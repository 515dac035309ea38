"""The launched process between the fork and its work: it becomes the user, in the user's surroundings."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from cluster.credentials import Claims
from cluster.forking import close_all_but, default_signals, die_with
from cluster.launch_request import LaunchRequest, to_bytes, to_text

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127

Main = Callable[[list[str]], int]


def become(request: LaunchRequest, claims: Claims, stdio: Sequence[int], mover: Main, minder: int) -> int:
    """Turn the calling process, a fresh fork of `minder`, into what `request` describes.

    `stdio`, descriptors above 2, become its stdin, stdout and stderr. All signals are blocked when this is
    called, and kept until their dispositions are the default ones again. Returns an exit code only after a
    mover's end or a failure; a failure puts one line on stderr and gives 127 where the command is not found and
    else 126, as in a shell.
    """
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    close_all_but({0, 1, 2})
    try:
        _change_user(claims)
        die_with(minder, signal.SIGKILL)
        os.umask(request.umask)
        _enter(request.cwd, request.fallback_cwd)
    except OSError as error:
        where = f"enter {to_text(error.filename)}" if error.filename else f"become uid {claims.uid}"
        return _fail(f"cannot {where}: {error.strerror}", EXIT_NOT_EXECUTABLE)
    environment = {to_bytes(name): to_bytes(value) for name, value in request.env.items()}
    default_signals()
    if request.kind == "mover":
        os.environb.clear()
        os.environb.update(environment)
        return mover(list(request.argv))
    command = request.argv[0]
    try:
        os.execvpe(to_bytes(command), [to_bytes(word) for word in request.argv], environment)  # noqa: S606
    except FileNotFoundError as error:
        reason = "command not found" if "/" not in command else str(error.strerror)
        return _fail(f"{command}: {reason}", EXIT_NOT_FOUND)
    except OSError as error:
        return _fail(f"{command}: {error.strerror}", EXIT_NOT_EXECUTABLE)


def _change_user(claims: Claims) -> None:
    # leaves the process undumpable until it executes something: the launcher's memory in it is not for the user
    if claims.uid != os.getuid():
        os.setgroups(claims.groups)
        os.setgid(claims.gid)
        os.setuid(claims.uid)


def _enter(cwd: str, fallback_cwd: str | None) -> None:
    try:
        os.chdir(to_bytes(cwd))
    except FileNotFoundError:
        if fallback_cwd is None:
            raise
        os.chdir(to_bytes(fallback_cwd))


def _fail(line: str, code: int) -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the code must get through even if nobody reads the line
    with contextlib.suppress(OSError):
        os.write(2, to_bytes(f"{line}\n"))
    return code
