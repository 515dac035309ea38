"""cluster.console: every way in which a command can end, its line, its exit code, and its last event with --json."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click
import pytest

from cluster.console import drive, main
from staging.mover.errors import CLASSES, StageError


def ended(work: Callable[[], int | None], *words: str) -> int:
    """Run a click command that does `work` as the program `prog` and give its exit code."""

    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    @click.argument("rest", nargs=-1)
    def command(as_json: bool, rest: tuple[str, ...]) -> int | None:
        return work()

    saved, sys.argv = sys.argv, ["prog", *words]
    try:
        with pytest.raises(SystemExit) as caught:
            main(command, "prog")
    finally:
        sys.argv = saved
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3), (137, 137)])
def test_a_commands_result_is_its_exit_code(result: int | None, code: int, capsys: Captured) -> None:
    assert ended(lambda: result) == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", CLASSES.values())
def test_our_errors_are_one_line_with_their_remedy(kind: type[StageError], capsys: Captured) -> None:
    assert ended(raising(kind("it broke", "mend it"))) == kind.exit_code
    assert capsys.readouterr() == ("", "prog: it broke; mend it\n")


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "x"),
            "prog: cannot use 'x': No such file or directory\n",
            1,
        ),
        (
            OSError(28, "No space left on device"),
            "prog: cannot continue: No space left on device; free space there, or choose another destination\n",
            8,
        ),
        (ZeroDivisionError("division by zero"), "prog: internal error: ZeroDivisionError: division by zero\n", 1),
    ],
)
def test_other_errors_are_one_line_too(error: BaseException, line: str, code: int, capsys: Captured) -> None:
    assert ended(raising(error)) == code
    assert capsys.readouterr() == ("", line)


def test_a_reader_that_is_gone_is_one_line(capsys: Captured) -> None:
    assert ended(raising(BrokenPipeError(32, "Broken pipe"))) == 1
    assert capsys.readouterr().err == "prog: cannot write standard output: its reader is gone\n"


def test_what_comes_from_a_name_is_escaped_and_starts_no_line(capsys: Captured) -> None:
    assert ended(raising(StageError("no \x1b[2J\nb\udcff", "go \r"))) == 1
    assert capsys.readouterr().err == "prog: no \\x1b[2J\\nb\\xff; go \\r\n"


PRINTS = """
import sys, click
from cluster.console import main
@click.command()
@click.argument("amount")
def command(amount):
    print("x" * (100000 if amount == "much" else 1))
main(command, "prog")
"""


@pytest.mark.parametrize("amount", ["much", "little"])
def test_a_full_disk_is_one_line_and_exit_8(amount: str) -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-c", PRINTS, amount]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (8, 1)
    assert "No space left on device" in done.stderr


def test_a_reader_that_is_gone_is_exit_1() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-c", PRINTS, "little"]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "prog: cannot write standard output: its reader is gone\n")


@pytest.mark.parametrize(
    ("error", "wire"),
    [
        (StageError("it broke", "mend it"), {"class": "StageError", "message": "it broke", "remedy": "mend it"}),
        (KeyError("x"), {"class": "StageError", "message": "internal error: KeyError: 'x'", "remedy": ""}),
    ],
)
def test_with_json_the_last_line_is_the_error_event(error: Exception, wire: dict[str, str], capsys: Captured) -> None:
    assert ended(raising(error), "--json") == 1
    event = json.loads(capsys.readouterr().out)
    assert event.pop("time") > 0
    assert event == {"type": "error", "schema": 1, "error": wire, "exit": 1}


def test_the_words_of_another_command_are_not_ours(capsys: Captured) -> None:
    assert ended(raising(StageError("it broke")), "--", "theirs", "--json") == 1
    assert capsys.readouterr() == ("", "prog: it broke\n")


@pytest.mark.parametrize("words", [("--nonesuch",), ("--json=x",)])
def test_wrong_usage_is_one_line_with_a_remedy(words: tuple[str, ...], capsys: Captured) -> None:
    assert ended(lambda: 0, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("prog: ")
    assert err.endswith("; see `prog --help`\n")
    assert err.count("\n") == 1


def test_help_is_no_error(capsys: Captured) -> None:
    assert ended(lambda: 1, "--help") == 0
    assert "Usage: prog" in capsys.readouterr().out


def waiting(tidied: list[str], number: signal.Signals) -> Callable[[], Coroutine[Any, Any, int]]:
    async def work() -> int:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append("up")
        return 0

    return work


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGTERM, 143, "prog: terminated\n"), (signal.SIGINT, 130, "prog: interrupted\n")],
)
def test_a_signal_ends_a_driven_command_after_it_has_tidied_up(
    number: signal.Signals, code: int, line: str, capsys: Captured
) -> None:
    tidied: list[str] = []
    assert ended(lambda: drive(waiting(tidied, number))) == code
    assert tidied == ["up"]
    assert capsys.readouterr().err.lstrip("\n") == line  # click ends the terminal's line with ^C on it


def test_the_second_signal_hurries_the_tidying_up_and_the_third_ends_it(capsys: Captured) -> None:
    seen: list[str] = []

    async def work() -> int:
        loop = asyncio.get_running_loop()
        loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("asked")
            loop.call_soon(os.kill, os.getpid(), signal.SIGTERM)
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("ended")
        return 0

    def again() -> None:
        seen.append("hurried")
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)

    assert ended(lambda: drive(work, again)) == 130
    assert seen == ["asked", "hurried", "ended"]
    assert "tidying up; once more leaves at once" in capsys.readouterr().err


def test_sigterm_ends_a_command_that_is_not_driven(capsys: Captured) -> None:
    tidied: list[str] = []

    def work() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            tidied.append("up")
        return 0

    assert ended(work) == 143
    assert tidied == ["up"]
    assert capsys.readouterr().err == "prog: terminated\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_driven_commands_result_is_passed_on() -> None:
    async def work() -> int:
        return 7

    assert ended(lambda: drive(work)) == 7
