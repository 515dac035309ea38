"""The process of a mover on the command's own host. Light to import, so that it can be started first of all.

A mover takes as long to load as a command does: `prepare` starts one that loads meanwhile, and `take` hands it out.
"""

from __future__ import annotations

import subprocess
import sys

_spare: subprocess.Popen[bytes] | None = None


def prepare() -> None:
    """Start the mover that the next `take` gives."""
    global _spare
    _spare = _spare or _start()


def take() -> subprocess.Popen[bytes]:
    """A mover that waits for its opening order; it ends when its stdin does."""
    global _spare
    process, _spare = _spare or _start(), None
    return process


def discard() -> None:
    """End the one that was prepared and not needed."""
    global _spare
    if _spare is not None:
        _spare.kill()
        _spare.communicate()
        _spare = None


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "staging.mover"],  # -P: nothing from the directory the user happens to be in
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # a terminal's ^C is for the command, which then tells the mover
    )
