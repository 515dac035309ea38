"""Where `pcp` starts: the source's mover loads while the command's own modules do, which a small copy feels."""

from __future__ import annotations

import sys
from typing import NoReturn

from staging import mover_process

NO_COPY = {"-h", "--help", "-V", "--version", "--plan"}


def pcp() -> NoReturn:
    """The command `pcp`."""
    if len(sys.argv) > 2 and not NO_COPY & set(sys.argv):
        mover_process.prepare()
    try:
        from staging.pcp import main

        main()
    finally:
        mover_process.discard()
