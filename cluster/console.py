"""What all commands share: exceptions become a line and an exit code here, and signals end things well."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import click

from staging.mover.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, describe

SCHEMA = 1


class Terminated(BaseException):
    """SIGTERM came."""


def main(command: click.Command, name: str) -> NoReturn:
    """Run a click command as a program; never returns."""
    as_json = "--json" in sys.argv
    code = EXIT_TERMINATED
    line = ""
    try:
        result = command.main(prog_name=name, standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show(file=sys.stderr)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        line, code = "interrupted", EXIT_INTERRUPTED
    except Terminated:
        line, code = "terminated", EXIT_TERMINATED
    except BrokenPipeError:
        code = 1
        sys.stdout = None  # whoever read our output is gone: nothing to flush
    except Exception as error:
        line, code = describe(error)
        if as_json:
            wire = error.to_wire() if hasattr(error, "to_wire") else {"class": type(error).__name__, "message": line}
            event = {"type": "error", "schema": SCHEMA, "time": time.time(), "error": wire, "exit": code}
            print(json.dumps(event), flush=True)  # noqa: T201 - the last event of --json
    if line:
        print(f"{name}: {line}", file=sys.stderr)  # noqa: T201 - this is the place that prints errors
    sys.exit(code)


def drive(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run an asynchronous command; ^C and SIGTERM cancel it, so that its `finally` parts run."""
    import asyncio  # here, since it takes longer to import than a quick command takes to run

    terminated = False

    async def watched() -> int:
        task = asyncio.current_task()
        assert task is not None

        def on_term() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_term)
        return await work()

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        raise (Terminated if terminated else KeyboardInterrupt) from None
