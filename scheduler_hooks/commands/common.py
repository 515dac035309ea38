"""Reading and checking a job script, as `stage check`, `stage run` and the dry run all do it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import click

from scheduler_hooks.check import check_destinations, check_sources, require
from scheduler_hooks.directives import parse
from scheduler_hooks.job import ENV_KILL_WAIT
from scheduler_hooks.jobscript import JobScript, Problem, conflicts
from scheduler_hooks.patterns import Values
from staging.mover.errors import SourceError, UsageError

MAX_SCRIPT = 4 << 20

kill_wait_option = click.option(
    "--kill-wait",
    type=click.IntRange(0, 3600),
    default=10,
    envvar=ENV_KILL_WAIT,
    metavar="SECONDS",
    help="Between TERM and KILL, when a job is stopped. Default: $STAGE_KILL_WAIT, else 10.",
)


def read_script(name: str) -> tuple[JobScript, list[Problem]]:
    """Parse the script in the file `name`."""
    try:
        with open(name, encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read(MAX_SCRIPT)
    except OSError as error:
        raise SourceError(f"cannot read the job script {name}: {error.strerror}") from None
    return parse(text, name)


def user() -> str:
    """The caller's name, as %u gives it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def check(script: JobScript, found: Sequence[Problem], nodes: Sequence[str], base: Path) -> None:
    """Raise UsageError with one line for each problem of the script on these nodes, as seen from `base`."""
    values = Values("1", user(), os.path.basename(script.name))
    problems = list(found)
    problems += conflicts(script, nodes, values)
    problems += check_sources(script, base, values, nodes)
    problems += check_destinations(script, base, nodes, values)
    require(sorted(problems, key=lambda problem: problem.line), script.name)


def assumed_nodes(script: JobScript, requested: int | None) -> tuple[str, ...]:
    """The names a job would have on an embedded cluster of its own."""
    if requested is None and script.nodes is not None and script.nodes.names:
        return script.nodes.names
    count = requested or (script.nodes.count if script.nodes is not None else 0)
    if not count:
        raise UsageError(f"{script.name} does not say how many nodes it needs", "give --nodes N, or #STAGE nodes N")
    return tuple(f"n{number}" for number in range(1, count + 1))
