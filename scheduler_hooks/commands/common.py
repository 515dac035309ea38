"""Reading and checking a job script, as `stage check`, `stage run` and the dry run all do it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from cluster import door, startup
from cluster.layout import Layout, working_directory
from cluster.nodes import fold
from scheduler_hooks.check import check_destinations, check_scratch, check_sources, require
from scheduler_hooks.directives import parse
from scheduler_hooks.job import ENV_KILL_WAIT, Job, JobNode, fit_nodes
from scheduler_hooks.jobscript import JobScript, Problem, conflicts
from scheduler_hooks.patterns import Values
from staging.mover.errors import SourceError, TemporaryError, UsageError
from staging.wording import count

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


def check(script: JobScript, found: Sequence[Problem], members: Sequence[JobNode], base: Path) -> None:
    """Raise UsageError with one line for each problem of the script on these nodes, as seen from `base`."""
    nodes = [node.name for node in members]
    values = Values("1", user(), os.path.basename(script.name))
    problems = list(found)
    problems += conflicts(script, nodes, values, lambda src: os.path.isdir(base / src))
    problems += check_sources(script, base, values, nodes)
    problems += check_destinations(script, base, nodes, values)
    problems += check_scratch(Job("%j", values.job_name, values.user, str(base), tuple(members), script))
    require(sorted(problems, key=lambda problem: problem.line), script.name)


def load(name: str, requested: int | None, layout: Layout) -> tuple[JobScript, tuple[JobNode, ...]]:
    """The script in the file `name`, checked, and the nodes that `stage run` would give it.

    Where no cluster runs these have neither address nor root.
    """
    script, problems = read_script(name)
    up = nodes_up(layout)
    try:
        nodes = members(job_nodes(script, requested, up), up)
    except UsageError:
        require(problems, script.name)  # perhaps that is why
        raise
    check(script, problems, nodes, working_directory())
    return script, nodes


def nodes_up(layout: Layout) -> dict[str, JobNode]:
    """The nodes of the running cluster that are up; none where no cluster runs."""
    if not startup.running(layout):
        return {}
    answer = door.ask(layout, {"op": "status"})
    return {n["name"]: JobNode(n["name"], 0, n["address"], n["root"]) for n in answer["nodes"] if n["state"] == "up"}


def job_nodes(script: JobScript, requested: int | None, up: Mapping[str, JobNode]) -> tuple[str, ...]:
    """The nodes that the job gets of those that are up, or on a cluster made for it where none are."""
    names = fit_nodes(script, requested, list(up)) if up else assumed_nodes(script, requested)
    if names is None:
        raise TemporaryError(
            f"the cluster has {count(len(up), 'node')} up, the job asks for {_wanted(script, requested)}",
            "use --nodes, or start them with `stage up`",
        )
    return names


def _wanted(script: JobScript, requested: int | None) -> str:
    if requested is None and script.nodes is not None and script.nodes.names:
        return fold(script.nodes.names)
    return str(requested or (script.nodes.count if script.nodes is not None else 0))


def members(names: Sequence[str], up: Mapping[str, JobNode]) -> tuple[JobNode, ...]:
    """The job's nodes in the order of their ranks, with what is known of them."""
    missing = JobNode("", 0, "", "")
    found = [(name, rank, up.get(name, missing)) for rank, name in enumerate(names)]
    return tuple(JobNode(name, rank, node.address, node.root) for name, rank, node in found)


def assumed_nodes(script: JobScript, requested: int | None) -> tuple[str, ...]:
    """The names a job would have on an embedded cluster of its own."""
    if requested is None and script.nodes is not None and script.nodes.names:
        return script.nodes.names
    count = requested or (script.nodes.count if script.nodes is not None else 0)
    if not count:
        raise UsageError(f"{script.name} does not say how many nodes it needs", "give --nodes N, or #STAGE nodes N")
    return tuple(f"n{number}" for number in range(1, count + 1))
