"""On a host: start the node service, which is given all it needs in a line and asks nothing.

The line is one JSON object (`cluster.kit.Kit`); it comes on an ssh session's stdin, or by `cluster.activated`. The
answer is one JSON line, after the node has joined or could not: {"up": pid} or {"error": an error in its wire form}.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from cluster import forking, keyfiles, node
from cluster.layout import HeadInfo, Layout
from cluster.startup import NodeSpec, versions
from staging.mover.errors import (
    RefusedError,
    SpaceError,
    StageError,
    TemporaryError,
    UsageError,
    describe,
    from_os_error,
)

MAX_SKEW = 25.0  # seconds; credentials put up with 30
MAX_PAYLOAD = 1 << 20
TAIL_BYTES = 4096


class Unborn:
    """A node service that has been forked and waits for its files.

    It is forked before any key has been read: the launcher, which it forks in turn, shall not have them in its memory.
    """

    def __init__(self) -> None:
        os.umask(0o077)
        go, self._go = os.pipe()
        self._ready, ready = os.pipe()

        def service() -> int:
            forking.close_all_but({0, 1, 2, go, ready})
            return _service(go, ready)

        self.pid = forking.fork(service)
        os.close(go)
        os.close(ready)

    def start(self, line: bytes, session: int) -> dict[str, Any]:
        """Let it serve as the payload `line` says, and wait until it has joined; the answer.

        `session`: a descriptor that becomes readable when whoever sent the line goes away, which undoes the start.
        """
        try:
            if not line.endswith(b"\n"):
                raise TemporaryError("the session ended before it said what to start")
            told = json.loads(line)
            _check(told)
            layout = _directory(told["parent"])
            try:
                self._start(layout, told, session)
            except BaseException:
                layout.remove_all()
                raise
        except StageError as error:
            return {"error": error.to_wire()}
        except Exception as error:
            return {"error": StageError(describe(error)[0]).to_wire()}
        return {"up": self.pid}

    def _start(self, layout: Layout, told: dict[str, Any], session: int) -> None:
        try:
            _fill(layout, told)
        except SpaceError as error:
            raise SpaceError(error.message, "free space there, or give --node-dir") from None
        log = os.open(_log(layout), os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(self._go, "wb") as file:
            file.write(json.dumps({"dir": str(layout.base), "node": told["node"]}).encode("ascii"))
        heard = select.select([self._ready, session], [], [])[0]
        if self._ready in heard and os.read(self._ready, 1):
            return
        if self._ready not in heard:
            os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        if self._ready not in heard:
            raise TemporaryError("the session ended before the node had joined")
        raise TemporaryError(f"the node service ended: {_last_line(log)}")


def main() -> int:
    """Start a node service as stdin says; the exit code, 0 when it has joined."""
    answer = Unborn().start(sys.stdin.buffer.readline(MAX_PAYLOAD), sys.stdin.fileno())
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
    return 0 if "up" in answer else 1


def _service(go: int, ready: int) -> int:
    """The service's process: detached from the session, it waits until its files are there."""
    os.setsid()
    with open(go, "rb") as file:
        order = file.read()
    if not order:
        return 0
    told = json.loads(order)
    layout = Layout(Path(told["dir"]))
    _hold(layout.base)
    log = os.open(_log(layout), os.O_WRONLY | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, fd in enumerate((null, log, log)):
        os.dup2(fd, target)
    os.chdir("/")
    return node.main([*NodeSpec(**told["node"]).arguments(layout.base), "--ready", str(ready), "--remove"])


def _check(told: dict[str, Any]) -> None:
    for name, here in versions().items():
        wanted = told["versions"].get(name)
        if here != wanted:
            raise UsageError(
                f"{name} is {here} under {sys.executable} and {wanted} on this host",
                "install the same version there, or give --python",
            )
    if os.geteuid() != told["head"]["uid"]:
        raise RefusedError(
            f"you are uid {os.geteuid()} there and uid {told['head']['uid']} here", "log in as the same user"
        )
    skew = time.time() - told["time"]
    if abs(skew) > MAX_SKEW:
        raise RefusedError(
            f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's", "set the clocks"
        )


def _directory(named: str) -> Layout:
    """A new directory for this node alone, in `named` or a place for temporary files."""
    # not below /run/user, which a login manager removes at the end of the user's last session
    above = Path(named or os.environ.get("RUNTIME_DIRECTORY") or os.environ.get("TMPDIR") or "/tmp")  # noqa: S108
    if not above.is_dir():
        raise UsageError(f"there is no directory {above}", "make it, or give another --node-dir")
    parent = above / f"longshore-{os.geteuid()}"
    while True:
        keyfiles.own_directory(parent)
        layout = Layout(parent / f"node-{secrets.token_hex(4)}")
        try:
            layout.base.mkdir(mode=0o700)
        except (FileExistsError, FileNotFoundError):  # another node that just ended removed the empty parent
            continue
        _sweep(parent)
        return layout


def _hold(base: Path) -> None:
    """Until the calling process ends, nobody takes the directory for one that was left behind."""
    fcntl.flock(os.open(base / ".lock", os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), fcntl.LOCK_SH)


def _sweep(parent: Path) -> None:
    """Remove what services left here that had no time to end, as when the power failed."""
    for lock in parent.glob("node-*/.lock"):
        with contextlib.suppress(OSError), open(lock, "rb") as file:  # gone just now, or held
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Layout(lock.parent).remove_all()


def _fill(layout: Layout, told: dict[str, Any]) -> None:
    try:
        _hold(layout.base)
        layout.keys.mkdir(mode=0o700)
        layout.logs.mkdir(mode=0o700)
        layout.node(told["node"]["name"]).mkdir(mode=0o700, parents=True)
        layout.write_head(HeadInfo(**told["head"]))
    except OSError as error:
        raise from_os_error(error, f"write to {layout.base}") from error
    for name, content in told["keys"].items():
        keyfiles.write(layout.keys / Path(name).name, content.encode("ascii"))


def _log(layout: Layout) -> Path:
    return layout.logs / "node.log"


def _last_line(log: int) -> str:
    size = os.fstat(log).st_size
    lines = os.pread(log, TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it left no word"
