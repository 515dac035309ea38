"""What all commands share: exceptions become a line and an exit code here, and signals end things well."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import click

from cluster import printing
from cluster.forking import open_standard_streams
from cluster.printing import printable
from cluster.signals import ENDING, Terminated, terminating
from staging.mover.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, StageError, UsageError, describe

SCHEMA = 1


def main(command: click.Command, name: str) -> NoReturn:
    """Run a click command as a program; never returns."""
    _complete_streams()
    as_json = "--json" in itertools.takewhile(lambda word: word != "--", sys.argv)
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])  # subcommands inherit it
    code = EXIT_TERMINATED
    line = ""
    failed: StageError | None = None
    unwritten = False  # whether it failed for what is perhaps the reason why `printing.flush` does
    try:
        with terminating():
            result = command.main(prog_name=name, standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else name
        failed, code = UsageError(error.format_message().rstrip("."), f"see `{path} --help`"), error.exit_code
    except (click.Abort, KeyboardInterrupt):
        line, code = "interrupted", EXIT_INTERRUPTED
    except Terminated:
        line, code = "terminated", EXIT_TERMINATED
    except (SystemExit, BrokenPipeError):  # the first is how click ends when our reader is gone
        failed, code = printing.unwritable(BrokenPipeError(errno.EPIPE, ""), "standard output"), 1
    except Exception as error:
        unwritten = isinstance(error, OSError)
        line, code = describe(error)
        failed = error if isinstance(error, StageError) else StageError(line)
    lost = printing.flush()
    if lost is not None and (unwritten or code == 0):
        failed, code = lost, lost.exit_code
    if failed is not None:
        line = _lines(failed)
    _say(f"{name}: {line}" if line else "", failed if as_json else None, code)
    printing.flush()
    sys.exit(code)


def _lines(error: StageError) -> str:
    """The error as it is printed: nothing that comes from a name can steer the terminal or start a line."""
    return "\n".join(map(printable, str(error).split("\n") if error.multiline else [str(error)]))


def _say(line: str, failed: StageError | None, code: int) -> None:
    """Print the last event and the last line."""
    with contextlib.suppress(OSError):
        if failed is not None:
            event = {"type": "error", "schema": SCHEMA, "time": time.time(), "error": failed.to_wire(), "exit": code}
            print(json.dumps(event), flush=True)  # noqa: T201 - the last event of --json
    with contextlib.suppress(OSError):
        if line:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the place that prints errors


def _complete_streams() -> None:
    """Daemons and cron close standard streams: nothing else may come to lie there, and printing must not fail."""
    open_standard_streams()
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def drive(work: Callable[[], Coroutine[Any, Any, int]], again: Callable[[], None] | None = None) -> int:
    """Run an asynchronous command; ^C and SIGTERM cancel it, so that its `finally` parts run.

    With `again` the second signal does not cut those short, but calls `again`, which may hurry them; the third does.
    """
    import asyncio  # here, since it takes longer to import than a quick command takes to run

    came: list[signal.Signals] = []

    async def watched() -> int:
        task = asyncio.current_task()
        assert task is not None

        def on(number: signal.Signals) -> None:
            came.append(number)
            if len(came) == 2 and again is not None:
                again()
                with contextlib.suppress(OSError):
                    click.echo("tidying up; once more leaves at once, and may leave files behind", err=True)
            else:
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP is under nohup, SIGINT in the background
                loop.add_signal_handler(number, on, number)
        return await work()

    saved = {number: signal.getsignal(number) for number in ENDING}
    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        raise (KeyboardInterrupt if came[:1] == [signal.SIGINT] else Terminated) from None
    finally:
        for number, handler in saved.items():  # the loop has left the default ones
            signal.signal(number, handler)
