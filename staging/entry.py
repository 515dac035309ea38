"""Where `pcp` starts: the source's mover loads while the command's own modules do, which a small copy feels."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from staging import mover_process

NO_COPY = {"-h", "--help", "-V", "--version", "--plan"}


def pcp() -> NoReturn:
    """The command `pcp`."""
    if len(sys.argv) > 2 and not NO_COPY & set(sys.argv):
        mover_process.prepare()
    code: str | int | None = 1
    try:
        from staging.pcp import main

        main()
    except SystemExit as ended:
        code = ended.code
    finally:
        mover_process.discard()
    # all is printed and flushed; taking Python down in order would take longer than a small copy's last steps
    os._exit(code if isinstance(code, int) else 1)
